//! One key with its certificate and the roots, checked before anybody can see them.

use std::fmt;

use ca_core::{
    ChainError, IssuedChain, PrivateKey, PublicKey, SigningKey as _, SpiffeId, SubjectName,
    TrustBundle,
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{Contents, Secret};
use crate::clock;

/// Key, certificate chain and roots that belong together.
///
/// One that exists was valid for its identity when it was made: Envoy accepts nearly anything over
/// SDS, and then fails connections, so what is wrong must never get that far.
pub(crate) struct WorkloadSecret {
    key_pem: Zeroizing<String>,
    issued: IssuedChain,
}

impl WorkloadSecret {
    /// Judges what a CA answered.
    ///
    /// # Errors
    ///
    /// When the certificate is for another key or another identity, is not valid now, or does not
    /// lead to the roots that came with it.
    pub(crate) fn verified(
        key: &PrivateKey,
        issued: IssuedChain,
        identity: &SpiffeId,
        now: OffsetDateTime,
    ) -> Result<Self, Unfit> {
        let leaf = issued.chain().leaf();
        if leaf.public_key() != key.public_key() {
            return Err(Unfit::Key);
        }
        let wanted = SubjectName::Spiffe(identity.clone());
        if leaf.names() != [wanted] || leaf.other_names() != 0 {
            return Err(Unfit::Identity {
                wanted: identity.clone(),
                found: leaf.names().iter().map(ToString::to_string).collect(),
            });
        }
        if now < leaf.not_before() {
            return Err(Unfit::NotYetValid(leaf.not_before()));
        }
        if leaf.not_after() <= now {
            return Err(Unfit::Expired(leaf.not_after()));
        }
        issued.chain().verify(issued.roots(), now)?;
        Ok(Self {
            key_pem: key.to_pkcs8_pem(),
            issued,
        })
    }

    /// The private key, PKCS#8.
    pub(crate) fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The leaf and its intermediates. **Without the root**: a peer that trusts the root has it
    /// already, and a peer that does not is not helped by it.
    pub(crate) fn chain_pem(&self) -> String {
        self.issued.chain().to_pem()
    }

    /// Key and certificate, as clients get them.
    pub(crate) fn key_pair(&self) -> Secret {
        Secret::new(Contents::KeyPair {
            chain: self.chain_pem(),
            key: self.key_pem.clone(),
            staple: None,
            not_after: self.not_after(),
        })
    }

    /// What the certificate is for.
    pub(crate) fn public_key(&self) -> &PublicKey {
        self.issued.chain().leaf().public_key()
    }

    /// The roots that came with the certificate.
    pub(crate) fn roots(&self) -> &TrustBundle {
        self.issued.roots()
    }

    /// The leaf's serial number.
    pub(crate) fn serial(&self) -> String {
        self.issued.chain().leaf().serial()
    }

    /// When the certificate ends.
    pub(crate) fn not_after(&self) -> OffsetDateTime {
        self.issued.chain().leaf().not_after()
    }

    /// Whether the certificate may still be shown to anybody.
    pub(crate) fn is_valid_at(&self, now: OffsetDateTime) -> bool {
        now < self.not_after()
    }
}

impl fmt::Debug for WorkloadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadSecret")
            .field("serial", &self.serial())
            .field("expires", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// What is wrong with a CA's answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// Envoy would keep a pair that does not match, and refuse good ones after it.
    #[error("the CA certified another key")]
    Key,
    /// Somebody else's certificate, or one that says more than it should.
    #[error("the CA certified {found:?} where only {wanted} was asked for")]
    Identity {
        /// Who we are.
        wanted: SpiffeId,
        /// Who the certificate says we are.
        found: Vec<String>,
    },
    /// The CA's clock is ahead of ours, or something keeps old answers.
    #[error("the certificate is not valid before {at}; is this machine's clock slow?", at = clock::show(*.0))]
    NotYetValid(OffsetDateTime),
    /// The CA's clock is behind ours, or something keeps old answers.
    #[error("the certificate expired at {at}; is this machine's clock fast?", at = clock::show(*.0))]
    Expired(OffsetDateTime),
    /// No peer would accept it.
    #[error("the certificate does not lead to the roots that came with it")]
    Chain(#[from] ChainError),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ca_core::{
        CertificateChain, TrustBundle,
        testing::{TestCa, now},
    };

    use super::*;
    use crate::secrets::testing::{HOUR, Lineage, identity, issue};

    fn judge(key: &PrivateKey, issued: IssuedChain, now: OffsetDateTime) -> Result<(), Unfit> {
        WorkloadSecret::verified(key, issued, &identity(), now).map(drop)
    }

    #[test]
    fn a_good_answer_is_taken_over() {
        let ca = TestCa::new("cluster.local");
        let (key, issued) = issue(&ca, &[identity().into()], HOUR, now());
        let secret = WorkloadSecret::verified(&key, issued.clone(), &identity(), now()).unwrap();
        assert_eq!(secret.chain_pem(), issued.chain().to_pem());
        assert_eq!(secret.roots(), issued.roots());
        assert_eq!(secret.not_after(), issued.chain().leaf().not_after());
        assert_eq!(
            PrivateKey::from_pem(secret.key_pem().as_bytes())
                .unwrap()
                .public_key(),
            key.public_key()
        );
    }

    #[test]
    fn a_certificate_for_another_key_is_refused() {
        let ca = TestCa::new("cluster.local");
        let (_, issued) = issue(&ca, &[identity().into()], HOUR, now());
        let (other, _) = issue(&ca, &[identity().into()], HOUR, now());
        assert!(matches!(judge(&other, issued, now()), Err(Unfit::Key)));
    }

    #[test]
    fn a_certificate_for_anybody_else_is_refused() {
        let ca = TestCa::new("cluster.local");
        let other = ca.id("shop", "admin");
        let dns = SubjectName::Dns("cart.shop.svc".parse().unwrap());
        for names in [
            vec![other.clone().into()],
            vec![identity().into(), other.into()],
            vec![identity().into(), dns.clone()],
            vec![dns],
        ] {
            let (key, issued) = issue(&ca, &names, HOUR, now());
            let error = judge(&key, issued, now()).unwrap_err();
            assert!(matches!(error, Unfit::Identity { .. }), "{error}");
            assert!(error.to_string().contains(identity().as_str()));
        }
    }

    #[test]
    fn a_certificate_of_another_time_is_refused() {
        let ca = TestCa::new("cluster.local");
        let (key, issued) = issue(&ca, &[identity().into()], HOUR, now());
        let early = issued.chain().leaf().not_before() - Duration::from_secs(1);
        let late = issued.chain().leaf().not_after() + Duration::from_secs(1);
        assert!(matches!(
            judge(&key, issued.clone(), early),
            Err(Unfit::NotYetValid(_))
        ));
        assert!(matches!(judge(&key, issued, late), Err(Unfit::Expired(_))));
    }

    #[test]
    fn a_chain_that_does_not_reach_the_roots_is_refused() {
        let ca = TestCa::new("cluster.local");
        let (key, issued) = issue(&ca, &[identity().into()], HOUR, now());
        let foreign = TestCa::new("cluster.local").roots();
        let issued = IssuedChain::new(issued.chain().clone(), foreign);
        assert!(matches!(judge(&key, issued, now()), Err(Unfit::Chain(_))));
    }

    #[test]
    fn a_ca_certificate_is_no_workload_certificate() {
        let ca = TestCa::new("cluster.local");
        let root = ca.roots().certificates()[0].clone();
        let roots = TrustBundle::new([root.clone()]).unwrap();
        let issued = IssuedChain::new(CertificateChain::new(root, []), roots);
        assert!(judge(ca.key(), issued, now()).is_err());
    }

    #[test]
    fn debug_shows_no_key() {
        let secret = Lineage::new().next();
        let inside = secret.key_pem().lines().nth(1).unwrap().to_owned();
        let shown = format!("{secret:?}");
        assert!(shown.contains(&secret.serial()) && !shown.contains(&inside));
    }
}
