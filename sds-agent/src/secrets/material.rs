//! Keys, certificates and roots as somebody else wrote them into files: judged before they are served.

use ca_core::{
    Certificate, CertificateChain, CertificateError, KeyError, PrivateKey, SigningKey as _,
};
use time::OffsetDateTime;

use super::{Contents, Secret};
use crate::{clock, roots_file};

/// A certificate and its key, if they can be used now.
///
/// # Errors
///
/// When one of them does not read, they do not belong together, or the time is not right.
pub(crate) fn key_pair(chain: &[u8], key: &[u8], now: OffsetDateTime) -> Result<Secret, Unusable> {
    let chain = CertificateChain::from_pem(chain).map_err(Unusable::Certificate)?;
    let key = PrivateKey::from_pem(key).map_err(Unusable::Key)?;
    let leaf = chain.leaf();
    if leaf.public_key() != key.public_key() {
        return Err(Unusable::Mismatch);
    }
    if now < leaf.not_before() {
        return Err(Unusable::NotYetValid(leaf.not_before()));
    }
    if leaf.not_after() <= now {
        return Err(Unusable::Expired(leaf.not_after()));
    }
    Ok(Secret::new(Contents::KeyPair {
        chain: chain.to_pem(),
        key: key.to_pkcs8_pem(),
        staple: None,
        not_after: leaf.not_after(),
    }))
}

/// The roots that can be read. Those that cannot are left out.
///
/// # Errors
///
/// When none can be read.
pub(super) fn roots(text: &[u8]) -> Result<Secret, Unusable> {
    let (roots, left_out) = roots_file::readable(text);
    if roots.is_empty() {
        return Err(Unusable::NoRoots);
    }
    if left_out > 0 {
        tracing::warn!(left_out, "some roots do not read and are left out");
    }
    let roots = roots.iter().map(Certificate::to_pem).collect();
    Ok(Secret::new(Contents::Roots {
        roots,
        revocation: None,
    }))
}

/// Why the contents of files are not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// The certificate does not read.
    #[error("the certificate does not read: {0}")]
    Certificate(#[source] CertificateError),
    /// The key does not read.
    #[error("the key does not read: {0}")]
    Key(#[source] KeyError),
    /// Half of a replacement, perhaps.
    #[error("the key does not belong to the certificate")]
    Mismatch,
    /// It may be later.
    #[error("the certificate is not valid before {at}", at = clock::show(*.0))]
    NotYetValid(OffsetDateTime),
    /// Nobody would accept it.
    #[error("the certificate expired at {at}", at = clock::show(*.0))]
    Expired(OffsetDateTime),
    /// Not one certificate.
    #[error("no root certificate can be read")]
    NoRoots,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ca_core::testing::{TestCa, now};

    use super::*;

    #[test]
    fn a_pair_is_served_if_it_fits_now() {
        let ca = TestCa::new("cluster.local");
        let (key, chain) = ca.workload("shop", "cart");
        let (other, _) = ca.workload("shop", "cart");
        let judge = |key: &PrivateKey, now| {
            let (chain, key) = (chain.to_pem(), key.to_pkcs8_pem());
            key_pair(chain.as_bytes(), key.as_bytes(), now)
        };
        let secret = judge(&key, now()).unwrap();
        assert_eq!(secret.not_after(), Some(chain.leaf().not_after()));
        assert!(matches!(judge(&other, now()), Err(Unusable::Mismatch)));
        let end = chain.leaf().not_after();
        assert!(matches!(judge(&key, end), Err(Unusable::Expired(_))));
        let early = chain.leaf().not_before() - Duration::from_secs(1);
        assert!(matches!(judge(&key, early), Err(Unusable::NotYetValid(_))));
        let junk = key_pair(b"junk", b"junk", now());
        assert!(matches!(junk, Err(Unusable::Certificate(_))));
        let junk = key_pair(chain.to_pem().as_bytes(), b"junk", now());
        assert!(matches!(junk, Err(Unusable::Key(_))));
    }
}
