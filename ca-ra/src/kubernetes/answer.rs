//! What a signer has put into the object, and the way from there to a chain.

use ca_core::crypto::RING;
use ca_core::{Certificate, CertificateChain, PublicKey, TrustBundle};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::error::KubernetesSignerError;

/// Certificates as PEM, in the order of the signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    certificates: Vec<u8>,
    /// What the signer says is the top of its chain.
    ca: Option<Vec<u8>>,
}

impl Answer {
    pub(super) fn new(certificates: Vec<u8>, ca: Option<Vec<u8>>) -> Self {
        Self { certificates, ca }
    }

    /// The certificate for `key`, and the others in any order. Without one for `key`, the first is judged, and refused
    /// for its key.
    pub(super) fn chain(&self, key: &PublicKey) -> Result<CertificateChain, KubernetesSignerError> {
        let mut all = Certificate::all_from_pem(&self.certificates)?;
        if all.len() > MOST_CERTIFICATES {
            return Err(KubernetesSignerError::TooMany { count: all.len() });
        }
        let at = all.iter().position(|each| each.public_key() == key);
        let leaf = all.remove(at.unwrap_or(0));
        Ok(CertificateChain::new(leaf, all))
    }

    /// The roots that it brings along: what it names as its top, else what is self-signed in `chain`.
    pub(super) fn roots(
        &self,
        chain: &CertificateChain,
    ) -> Result<TrustBundle, KubernetesSignerError> {
        let roots = match &self.ca {
            Some(pem) => Certificate::all_from_pem(pem)?,
            None => chain
                .iter()
                .filter(|each| each.is_ca() && each.is_signed_by(each, &RING))
                .cloned()
                .collect(),
        };
        TrustBundle::new(roots).map_err(KubernetesSignerError::NoRoots)
    }
}

/// The time as it goes on while a signer is waited for: what it makes is judged by when it came, not by when it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    asked_at: OffsetDateTime,
    started: Instant,
}

impl Clock {
    pub(super) fn starting(now: OffsetDateTime) -> Self {
        Self {
            asked_at: now,
            started: Instant::now(),
        }
    }

    pub(super) fn now(self) -> OffsetDateTime {
        self.asked_at + self.started.elapsed()
    }

    /// Waits until `certificate` begins, where that is a moment from now. cert-manager does not backdate, and nobody's
    /// clock is exactly ours.
    pub(super) async fn wait_for(self, certificate: &Certificate) {
        let early = certificate.not_before() - self.now();
        if early.is_positive() && early <= SKEW {
            tokio::time::sleep(early.unsigned_abs()).await;
        }
    }
}

/// A signer's clock may be that much ahead of ours.
const SKEW: time::Duration = time::Duration::seconds(5);
/// More than any chain, and few enough to be put in order.
const MOST_CERTIFICATES: usize = 64;
