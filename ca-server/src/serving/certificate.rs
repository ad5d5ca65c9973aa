//! The certificate of our own listener: made before it opens, renewed while it is open.

use std::time::Duration;

use ca_core::{
    Backoff, LocalAuthority, RenewalPolicy, SignError, SubjectName, Subscription, random_unit,
};
use time::OffsetDateTime;

use super::tls::{CurrentTls, TlsError, server_config};

/// What is needed to renew a certificate.
#[derive(Debug)]
pub(crate) struct Renewal {
    plan: ServingPlan,
    at: OffsetDateTime,
    /// From before the first certificate was made, so that no change is missed.
    bundle_changes: Subscription,
}

/// The first certificate, and what it takes to renew it.
pub(crate) fn start(
    plan: ServingPlan,
    now: OffsetDateTime,
) -> Result<(CurrentTls, Renewal), ServingError> {
    let bundle_changes = plan.authority.bundles().subscribe();
    let (config, at) = plan.issue(now)?;
    Ok((
        CurrentTls::new(config),
        Renewal {
            plan,
            at,
            bundle_changes,
        },
    ))
}

/// Renews for ever: by lifetime, and at once when the CA's bundle changes, because then the roots for client
/// certificates change too. What is in use stays in use until its successor is there.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge: it waits for the real clock"
)]
pub(crate) async fn keep_renewed(renewal: Renewal, tls: CurrentTls) {
    let Renewal {
        plan,
        at: mut renew_at,
        mut bundle_changes,
    } = renewal;
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_WAIT);
    loop {
        // Never asleep for long: a clock that jumps, or a machine that was suspended, is noticed.
        let left = Duration::try_from(renew_at - OffsetDateTime::now_utc()).unwrap_or_default();
        tokio::select! {
            _ = bundle_changes.changed() => {}
            () = tokio::time::sleep(left.min(LONGEST_WAIT)) => {
                if OffsetDateTime::now_utc() < renew_at {
                    continue;
                }
            }
        }
        let now = OffsetDateTime::now_utc();
        match plan.issue(now) {
            Ok((config, next)) => {
                tls.set(config);
                backoff.reset();
                renew_at = next;
                tracing::info!(next_renewal = %next, "serving certificate renewed");
            }
            Err(error) => {
                renew_at = now + backoff.next(random_unit());
                tracing::error!(retry = %renew_at, "serving certificate not renewed: {error}");
            }
        }
    }
}

/// What the listener's certificate is made from.
#[derive(Clone, Debug)]
pub(crate) struct ServingPlan {
    pub(crate) authority: LocalAuthority,
    pub(crate) names: Vec<SubjectName>,
}

impl ServingPlan {
    fn issue(
        &self,
        now: OffsetDateTime,
    ) -> Result<(rustls::ServerConfig, OffsetDateTime), ServingError> {
        let (key, issued) = self
            .authority
            .issue_with_new_key(self.names.clone(), LIFETIME, now)?;
        let leaf = issued.chain().leaf();
        let renew_at =
            RenewalPolicy::default().renew_at(leaf.not_before(), leaf.not_after(), random_unit());
        let config = server_config(&key, issued.chain(), issued.roots())?;
        // A CA that is about to end gives certificates that are due at once: not more often than this.
        Ok((config, renew_at.max(now + FIRST_RETRY)))
    }
}

/// Why the listener has no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServingError {
    /// Not signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Istio asks for as long as its root lives and renews only with it; a day is what its workloads get.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
