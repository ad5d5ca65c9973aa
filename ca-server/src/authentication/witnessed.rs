//! An authenticator whose verdicts somebody else learns of as well: also those after which another one vouches.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ca_auth::{Authenticator, AuthenticatorStatus, AuthnError, Caller, Evidence};
use ca_core::BoxFuture;
use time::OffsetDateTime;

/// Who learns of verdicts.
pub(crate) trait Witness: Send + Sync + fmt::Debug {
    /// One authenticator has judged one request.
    fn verdict(
        &self,
        authenticator: &'static str,
        verdict: &Result<Caller, AuthnError>,
        took: Duration,
    );
}

#[derive(Debug)]
pub(super) struct Witnessed {
    pub(super) inner: Box<dyn Authenticator>,
    pub(super) witness: Arc<dyn Witness>,
}

impl Authenticator for Witnessed {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn authenticate<'a>(
        &'a self,
        evidence: &'a Evidence,
        now: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Caller, AuthnError>> {
        Box::pin(async move {
            let started = Instant::now();
            let verdict = self.inner.authenticate(evidence, now).await;
            self.witness
                .verdict(self.inner.name(), &verdict, started.elapsed());
            verdict
        })
    }

    fn status(&self) -> AuthenticatorStatus {
        self.inner.status()
    }
}
