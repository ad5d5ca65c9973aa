//! The floor: the cryptography of one issuance, called without anything of ours around it.

mod aws_lc_rs;
mod connection;
mod ring;

use anyhow::{Context as _, Result, ensure};
use ca_core::{Csr, KeyKind, PrivateKey};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::issuance::Issuance;
use crate::library::Library;
use crate::material::Material;

pub use connection::ConnectionFloor;

/// One verification of the signature of a CSR, and one signature over a certificate of the same length as ours.
pub struct Floor {
    verify: Box<Verify>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    sign: Box<Sign>,
    to_sign: Vec<u8>,
}

type Verify = dyn Fn(&[u8], &[u8]) -> bool;
type Sign = dyn Fn(&[u8]) -> bool;

impl Floor {
    /// For the same key and the same request as [`Issuance::new`].
    ///
    /// # Errors
    /// When the material is not there, or the library refuses it.
    pub fn new(
        library: Library,
        material: &Material<'_>,
        ca: KeyKind,
        csr: KeyKind,
    ) -> Result<Self> {
        let issued = Issuance::new(library, material, ca, csr)?.issue()?;
        let (_, leaf) = X509Certificate::from_der(issued.chain().leaf().der())?;
        let to_sign = leaf.tbs_certificate.as_ref().to_vec();

        let request = Csr::from_pem(material.read(csr, "csr")?.as_bytes())?;
        let (_, request) = X509CertificationRequest::from_der(request.der())?;
        let info = &request.certification_request_info;
        let public_key = info.subject_pki.subject_public_key.data.to_vec();

        let key = PrivateKey::from_pem(material.read(ca, "key")?.as_bytes())?;
        let key = key.pkcs8_der();
        let (verify, sign) = match library {
            Library::Ring => (ring::verifier(csr, public_key), ring::signer(ca, key)?),
            Library::AwsLcRs => (
                aws_lc_rs::verifier(csr, public_key),
                aws_lc_rs::signer(ca, key)?,
            ),
        };
        let floor = Self {
            verify: verify.context("no bare verification for this kind")?,
            signed: info.raw.to_vec(),
            signature: request.signature_value.data.to_vec(),
            sign: sign.context("no bare signature for this kind")?,
            to_sign,
        };
        ensure!(floor.verify_and_sign(), "the floor does not hold");
        Ok(floor)
    }

    /// Does it once; `false` when the library refuses.
    #[must_use]
    pub fn verify_and_sign(&self) -> bool {
        self.verify() && self.sign()
    }

    /// The first half: what the CSR alone costs.
    #[must_use]
    pub fn verify(&self) -> bool {
        (self.verify)(&self.signed, &self.signature)
    }

    /// The second half.
    #[must_use]
    pub fn sign(&self) -> bool {
        (self.sign)(&self.to_sign)
    }
}

/// A signature that nobody reads would not be written: the compiler sees through it.
fn is_read(signature: &[u8]) -> bool {
    !std::hint::black_box(signature).is_empty()
}
