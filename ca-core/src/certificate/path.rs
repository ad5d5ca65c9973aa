//! From a heap of certificates to the path that leads upwards from one of them.

use der::asn1::BitStringRef;
use der::{Decode as _, Reader as _, SliceReader};

use super::{Certificate, CertificateChain};
use crate::crypto::Backend;
use crate::trust::TrustBundle;

impl CertificateChain {
    /// Puts the certificates of `pool` that lead from `leaf` to one of `roots` in their order, each once. What does not
    /// belong to the path is left out, and so is the root. Whether the path holds is for
    /// [`verify`](CertificateChain::verify) to say.
    pub fn ordered(
        leaf: Certificate,
        pool: &[Certificate],
        roots: &TrustBundle,
        backend: &Backend,
    ) -> Self {
        let mut path: Vec<Certificate> = Vec::new();
        loop {
            let last = path.last().unwrap_or(&leaf);
            // Enough: a root, or somebody whom a root has signed.
            if roots.contains(last)
                || roots
                    .certificates()
                    .iter()
                    .any(|root| last.is_signed_by(root, backend))
            {
                break;
            }
            let next = pool.iter().find(|candidate| {
                **candidate != leaf
                    && !path.contains(candidate)
                    && last.is_signed_by(candidate, backend)
            });
            let Some(next) = next else { break };
            path.push(next.clone());
        }
        Self::new(leaf, path)
    }
}

impl Certificate {
    /// Whether the key of `issuer` has signed this certificate, and the names fit.
    pub fn is_signed_by(&self, issuer: &Certificate, backend: &Backend) -> bool {
        // Names first: they cost nothing.
        self.issuer_der() == issuer.subject_der()
            && read_signed(self.der()).is_ok_and(|signed| {
                issuer
                    .public_key()
                    .verify(backend, signed.algorithm, signed.message, signed.signature)
                    .is_ok()
            })
    }
}

/// The outermost layer of a certificate or a revocation list: what is signed, how, and the signature.
pub(crate) struct Signed<'a> {
    pub(crate) message: &'a [u8],
    pub(crate) algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
}

pub(crate) fn read_signed(der: &[u8]) -> der::Result<Signed<'_>> {
    let mut reader = SliceReader::new(der)?;
    let signed = reader.sequence(|r| {
        let message = r.tlv_bytes()?;
        let algorithm = der::AnyRef::decode(r)?;
        algorithm.header().tag().assert_eq(der::Tag::Sequence)?;
        let signature = BitStringRef::decode(r)?;
        let signature = signature
            .as_bytes()
            .ok_or_else(|| r.error(der::ErrorKind::Failed))?;
        Ok::<_, der::Error>(Signed {
            message,
            algorithm: algorithm.value(),
            signature,
        })
    })?;
    reader.finish()?;
    Ok(signed)
}
