//! What somebody has put into the folder.

use std::path::Path;

use ca_core::{Certificate, CertificateChain, IssuedChain, PublicKey, TrustBundle, crypto::RING};
use time::OffsetDateTime;

use super::{CHAIN, DropError, ROOTS};

/// The two files as they were at one moment.
#[derive(Clone, Debug)]
pub(super) enum Dropped {
    /// Neither is there.
    Nothing,
    /// This one is still to come.
    Without(&'static str),
    /// This one is something else, for this reason.
    Broken(&'static str, String),
    /// Both are there and read.
    Complete(IssuedChain),
}

impl Dropped {
    pub(super) fn read(chain: Option<&[u8]>, roots: Option<&[u8]>) -> Self {
        let (chain, roots) = match (chain, roots) {
            (None, None) => return Self::Nothing,
            (None, Some(_)) => return Self::Without(CHAIN),
            (Some(_), None) => return Self::Without(ROOTS),
            (Some(chain), Some(roots)) => (chain, roots),
        };
        let mut certificates = match Certificate::all_from_pem(chain) {
            Ok(certificates) => certificates,
            Err(error) => return Self::Broken(CHAIN, error.to_string()),
        };
        let roots = match TrustBundle::from_pem(roots) {
            Ok(roots) => roots,
            Err(error) => return Self::Broken(ROOTS, error.to_string()),
        };
        let leaf = certificates.remove(0);
        // People put certificates into a file in any order.
        let chain = CertificateChain::ordered(leaf, &certificates, &roots, &RING);
        Self::Complete(IssuedChain::new(chain, roots))
    }

    /// What the certificate is for, if it may be used now.
    pub(super) fn key_at(&self, now: OffsetDateTime) -> Option<&PublicKey> {
        match self {
            Self::Complete(issued) if issued.chain().leaf().is_valid_at(now) => {
                Some(issued.chain().leaf().public_key())
            }
            _ => None,
        }
    }

    /// The answer for `key`. What was the answer for the key `in_use` is none, and no mistake either.
    pub(super) fn answer(
        &self,
        key: &PublicKey,
        in_use: Option<&PublicKey>,
        folder: &Path,
    ) -> Result<IssuedChain, DropError> {
        let waiting = |missing| DropError::Waiting {
            folder: folder.to_owned(),
            missing,
        };
        match self {
            Self::Nothing => Err(waiting("cert-chain.pem and root-cert.pem")),
            Self::Without(name) => Err(waiting(name)),
            Self::Broken(name, reason) => Err(DropError::Broken {
                file: folder.join(name),
                reason: reason.clone(),
            }),
            Self::Complete(issued) => match issued.chain().leaf().public_key() {
                found if found == key => Ok(issued.clone()),
                found if Some(found) == in_use => Err(waiting("a new cert-chain.pem")),
                _ => Err(DropError::OtherKey(folder.join(CHAIN))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use ca_core::{
        SigningKey as _,
        testing::{TestCa, now},
    };

    use super::*;

    #[test]
    fn each_half_and_each_mistake_is_told_apart() {
        let ca = TestCa::new("cluster.local");
        let (key, chain) = ca.workload("shop", "cart");
        let (other, _) = ca.workload("shop", "cart");
        let (pem, roots) = (chain.to_pem(), ca.root_pem());
        let read = |chain: Option<&str>, roots: Option<&str>| {
            Dropped::read(chain.map(str::as_bytes), roots.map(str::as_bytes))
        };
        let (good, chain, roots) = (read(Some(&pem), Some(&roots)), Some(&*pem), Some(&*roots));
        let told = |drop: &Dropped| {
            let answer = drop.answer(other.public_key(), None, Path::new("/drop"));
            answer.unwrap_err().to_string()
        };
        for (drop, words) in [
            (
                read(None, None),
                "waiting for cert-chain.pem and root-cert.pem in /drop",
            ),
            (read(None, roots), "waiting for cert-chain.pem in"),
            (read(chain, None), "waiting for root-cert.pem in"),
            (read(Some("x"), roots), "/drop/cert-chain.pem is refused: "),
            (read(Some(""), roots), "/drop/cert-chain.pem is refused: "),
            (read(chain, Some("x")), "/drop/root-cert.pem is refused: "),
            (read(chain, chain), "/drop/root-cert.pem is refused: "),
            (good.clone(), "it is not for the key of workload.csr"),
        ] {
            assert!(told(&drop).contains(words), "{}", told(&drop));
            if !matches!(drop, Dropped::Complete(_)) {
                assert!(drop.key_at(now()).is_none());
            }
        }
        let key = key.public_key();
        assert!(good.answer(key, None, Path::new("")).is_ok());
        assert_eq!(good.key_at(now()), Some(key));
        assert_eq!(good.key_at(now() + time::Duration::DAY), None);
        let old = good
            .answer(other.public_key(), Some(key), Path::new(""))
            .unwrap_err();
        assert!(matches!(old, DropError::Waiting { .. }));
    }
}
