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
        if is_quick(&self.0) {
            return self.0.sign(request, now);
        }
        Box::pin(off_thread(&self.0, move |authority| {
            authority.issue(&request, now)
        }))
    }
}

/// Has `sign` done here if it is quick, else on a thread that may block.
pub(super) fn off_thread(
    authority: &LocalAuthority,
    sign: impl FnOnce(&LocalAuthority) -> Result<IssuedChain, SignError> + Send + 'static,
) -> impl Future<Output = Result<IssuedChain, SignError>> + Send + 'static {
    let authority = authority.clone();
    async move {
        if is_quick(&authority) {
            return sign(&authority);
        }
        tokio::task::spawn_blocking(move || sign(&authority))
            .await
            .map_err(|_| SignError::Unavailable("the signing thread ended early".into()))?
    }
}

/// A P-256 or Ed25519 signature takes some 20 µs, less than it costs to hand it to another thread; P-384 takes a
/// tenth and RSA-2048 most of a millisecond, which would hold up every connection on the thread.
fn is_quick(authority: &LocalAuthority) -> bool {
    matches!(
        authority.bundles().current().key().public_key().kind(),
        PublicKeyKind::EcdsaP256 | PublicKeyKind::Ed25519
    )
}
