//! Signing off the async threads when it is slow: the one place that decides this.

use ca_core::{
    BoxFuture, CertificateAuthority, IssuedChain, LocalAuthority, PublicKeyKind, SignError,
    SigningRequest,
};
use time::OffsetDateTime;

/// [`LocalAuthority`], on the right thread.
#[derive(Clone, Debug)]
pub(crate) struct OffloadingAuthority(LocalAuthority);

impl OffloadingAuthority {
    pub(crate) fn new(authority: LocalAuthority) -> Self {
        Self(authority)
    }
}

impl CertificateAuthority for OffloadingAuthority {
    fn sign(
        &self,
        request: SigningRequest,
        now: OffsetDateTime,
    ) -> BoxFuture<'_, Result<IssuedChain, SignError>> {
        if is_quick(self.0.bundles().current().key().public_key().kind()) {
            return self.0.sign(request, now);
        }
        let authority = self.0.clone();
        Box::pin(async move {
            tokio::task::spawn_blocking(move || authority.issue(&request, now))
                .await
                .map_err(|_| SignError::Unavailable("the signing thread ended early".into()))?
        })
    }
}

/// A P-256 or Ed25519 signature takes some 20 µs, less than it costs to hand it to another thread; P-384 takes a
/// tenth and RSA-2048 most of a millisecond, which would hold up every connection on the thread.
fn is_quick(kind: PublicKeyKind) -> bool {
    matches!(kind, PublicKeyKind::EcdsaP256 | PublicKeyKind::Ed25519)
}
