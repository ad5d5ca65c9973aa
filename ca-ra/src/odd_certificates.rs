//! Requests and certificates that no CA of ours would make, for tests.

use ca_core::{Certificate, Csr};
use rcgen::{
    Attribute, BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

pub(crate) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// 2027-01-15, 08:00 UTC.
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

/// No subject and no names.
pub(crate) fn blank() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
}

/// What ztunnel asks for: no subject, one URI.
pub(crate) fn of_cart() -> CertificateParams {
    let mut params = blank();
    params.subject_alt_names = vec![uri(CART)];
    params
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn extension(oid: &[u64], value: &[u8]) -> CustomExtension {
    CustomExtension::from_oid_content(oid, value.to_vec())
}

pub(crate) fn new_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

pub(crate) fn csr(key: &KeyPair, params: &CertificateParams, more: Vec<Attribute>) -> Csr {
    let request = params.serialize_request_with_attributes(key, more).unwrap();
    Csr::from_der(request.der()).unwrap()
}

/// A CA of somebody else.
pub(crate) struct ForeignCa {
    pub(crate) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl ForeignCa {
    pub(crate) fn root(name: &str) -> Self {
        let (params, key) = (ca_params(name), new_key());
        let certificate = read(&params.self_signed(&key).unwrap());
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let (params, key) = (ca_params(name), new_key());
        let certificate = self.sign(&params, &key);
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    pub(crate) fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Certificate {
        read(&params.signed_by(key, &self.issuer).unwrap())
    }
}

/// A certificate as a good signer makes it for one hour.
pub(crate) fn leaf_of_cart() -> CertificateParams {
    let mut params = of_cart();
    params.not_before = now() - Duration::minutes(2);
    params.not_after = now() + Duration::hours(1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = blank();
    params
        .distinguished_name
        .push(DnType::CommonName, name.to_owned());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = now() - Duration::days(1);
    params.not_after = now() + Duration::days(30);
    params
}

fn read(certificate: &rcgen::Certificate) -> Certificate {
    Certificate::from_der(certificate.der().to_vec()).unwrap()
}
