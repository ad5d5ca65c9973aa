//! Making a request: the workload's side of the CSR.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, PublicKeyData, SanType, SignatureAlgorithm,
};

use super::LABEL;
use crate::identity::SubjectName;
use crate::key::SigningKey;
use crate::public_key::PublicKeyKind;

/// A request by the holder of `key` for `names`, as PEM: empty subject, one critical extension with the names.
///
/// # Errors
/// When the key does not sign, or a name cannot be encoded.
pub fn create_csr_pem(
    key: &dyn SigningKey,
    names: &[SubjectName],
) -> Result<String, CreateCsrError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names
        .iter()
        .map(alternative_name)
        .collect::<Result<_, _>>()?;
    let request = params
        .serialize_request(&Adapter(key))
        .map_err(CreateCsrError)?;
    Ok(crate::certificate::encode_pem(LABEL, request.der()))
}

/// A request by the holder of `key` for the certificate of a CA with this subject, as PEM. The subject is a wish for CAs
/// that go by it; that it is to be a CA is for whoever signs to know.
///
/// # Errors
/// As [`create_csr_pem`].
pub fn create_ca_csr_pem(
    key: &dyn SigningKey,
    organization: &str,
    common_name: &str,
) -> Result<String, CreateCsrError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in [
        (DnType::OrganizationName, organization),
        (DnType::CommonName, common_name),
    ] {
        params.distinguished_name.push(kind, value);
    }
    let request = params
        .serialize_request(&Adapter(key))
        .map_err(CreateCsrError)?;
    Ok(crate::certificate::encode_pem(LABEL, request.der()))
}

/// Why a request was not made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate signing request: {0}")]
pub struct CreateCsrError(rcgen::Error);

fn alternative_name(name: &SubjectName) -> Result<SanType, CreateCsrError> {
    Ok(match name {
        SubjectName::Spiffe(id) => SanType::URI(id.as_str().try_into().map_err(CreateCsrError)?),
        SubjectName::Dns(name) => {
            SanType::DnsName(name.as_str().try_into().map_err(CreateCsrError)?)
        }
        SubjectName::Ip(address) => SanType::IpAddress(*address),
    })
}

/// One of our keys, as rcgen wants to see it.
struct Adapter<'a>(&'a dyn SigningKey);

impl PublicKeyData for Adapter<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().key_bits()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.0.public_key().kind() {
            PublicKeyKind::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            PublicKeyKind::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            PublicKeyKind::Ed25519 => &rcgen::PKCS_ED25519,
            PublicKeyKind::Rsa { .. } => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl rcgen::SigningKey for Adapter<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0
            .sign(message)
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
