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
        let mut search = Search {
            pool,
            roots,
            backend,
            checks_left: MAX_CHECKS,
            longest: Vec::new(),
        };
        let path = search
            .upwards_from(&leaf, &mut Vec::new())
            .unwrap_or(search.longest);
        Self::new(leaf, path)
    }
}

/// Looks for a way up, and back down where a way ends: during a change of roots an intermediate is often there twice, signed
/// by the old root and by the new one.
struct Search<'a> {
    pool: &'a [Certificate],
    roots: &'a TrustBundle,
    backend: &'a Backend,
    /// Signatures that may still be checked: a heap that is made to be searched for ever is not.
    checks_left: usize,
    /// The longest way that led nowhere, for whoever is to say what is missing.
    longest: Vec<Certificate>,
}

impl Search<'_> {
    /// The certificates above `last` up to one that a root has signed.
    fn upwards_from(
        &mut self,
        last: &Certificate,
        path: &mut Vec<Certificate>,
    ) -> Option<Vec<Certificate>> {
        let roots = self.roots;
        if roots.contains(last)
            || roots
                .certificates()
                .iter()
                .any(|root| self.is_signed(last, root))
        {
            return Some(path.clone());
        }
        if path.len() > self.longest.len() {
            self.longest.clone_from(path);
        }
        for candidate in self.pool {
            if path.contains(candidate) || candidate == last || !self.is_signed(last, candidate) {
                continue;
            }
            path.push(candidate.clone());
            if let Some(found) = self.upwards_from(candidate, path) {
                return Some(found);
            }
            path.pop();
        }
        None
    }

    fn is_signed(&mut self, certificate: &Certificate, issuer: &Certificate) -> bool {
        if certificate.issuer_der() != issuer.subject_der() || self.checks_left == 0 {
            return false;
        }
        self.checks_left -= 1;
        certificate.is_signed_by(issuer, self.backend)
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

/// Far more than any real heap of certificates needs.
const MAX_CHECKS: usize = 256;
