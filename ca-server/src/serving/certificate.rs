//! What a listener shows of itself: a key, its certificate, and the roots that this leads to.

use std::time::Duration;

use ca_core::{
    CertificateChain, IssuedChain, LocalAuthority, PrivateKey, SignError, SubjectName, TrustBundle,
};
use time::OffsetDateTime;

/// The key, the chain of its certificate, and the roots that clients verify it with.
#[derive(Clone, Debug)]
pub(crate) struct ServingCertificate {
    pub(super) key: PrivateKey,
    pub(super) chain: CertificateChain,
    pub(super) roots: TrustBundle,
}

impl ServingCertificate {
    /// A new key, certified by our own CA.
    pub(super) fn issue(
        authority: &LocalAuthority,
        names: &[SubjectName],
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Self, SignError> {
        let (key, issued) = authority.issue_with_new_key(names.to_vec(), lifetime, now)?;
        Ok(Self::issued(key, &issued))
    }

    /// What somebody has certified.
    pub(super) fn issued(key: PrivateKey, issued: &IssuedChain) -> Self {
        Self {
            key,
            chain: issued.chain().clone(),
            roots: issued.roots().clone(),
        }
    }
}
