//! The task that owns the workload's secret: obtain, publish, sleep until renewal, back off.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ca_core::{
    Backoff, BoxFuture, CreateCsrError, KeyError, SubjectName, create_csr_pem, random_unit,
};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Publisher, Workload, WorkloadSecret, overlap::Overlap, workload_secret::Unfit};
use crate::{
    ca_client::{CaClient, CaError},
    clock,
    config::WorkloadConfig,
    metrics::Metrics,
};

/// The least time between two attempts, whatever dates a CA puts into its certificates.
const LEAST_WAIT: Duration = Duration::from_millis(500);

/// The most that a back-off grows to.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// How long a new certificate waits for clients to take the roots that go with it. Only when roots
/// change, and only for clients that do not answer: the others need milliseconds.
const ROOTS_HEAD_START: Duration = Duration::from_secs(1);

/// Owns the secret. **A valid secret is never given up before its successor is there.**
pub(crate) struct Keeper {
    config: WorkloadConfig,
    ca: Box<dyn CaClient>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    /// Rung when somebody wants a renewal now.
    renew_now: Arc<Notify>,
    /// Roots that the CA no longer sends and peers may still need.
    overlap: Overlap,
    /// The end of the certificate whose end has been told, so that it is told once.
    expiry_told: Option<OffsetDateTime>,
}

impl Keeper {
    pub(crate) fn new(
        config: WorkloadConfig,
        ca: Box<dyn CaClient>,
        publisher: Publisher,
        metrics: Arc<Metrics>,
        renew_now: Arc<Notify>,
    ) -> Self {
        Self {
            config,
            ca,
            publisher,
            metrics,
            renew_now,
            overlap: Overlap::default(),
            expiry_told: None,
        }
    }

    /// Keeps the secret until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
    }

    /// Never returns.
    async fn keep(&mut self) {
        let mut backoff = Backoff::new(LEAST_WAIT, LONGEST_BACKOFF);
        loop {
            // Before the attempt, so that nothing that changes meanwhile is missed.
            let changes = self.ca.changes();
            let attempt = self.attempt().await;
            let now = clock::now();
            let failed = attempt.is_err();
            let next = match attempt {
                Ok(secret) => {
                    backoff.reset();
                    self.succeeded(Arc::new(secret), now).await
                }
                Err(error) => {
                    let held = self.publisher.workload();
                    let held = held.as_ref().map(|workload| &*workload.secret);
                    let wait = retry_wait(backoff.next(random_unit()), held, now);
                    self.failed(&error, now + wait)
                }
            };
            let renew_now = Arc::clone(&self.renew_now);
            tokio::select! {
                () = renew_now.notified() => tracing::info!("renewing now, as told"),
                // A failure may be over when somebody has replaced a token or roots: why wait?
                () = later(LEAST_WAIT, changes), if failed => {
                    tracing::info!("asking again: what the last attempt went by has changed");
                }
                () = self.wait(next) => {}
            }
            if failed {
                self.metrics.retried();
            }
        }
    }

    /// One key, one CSR, one answer, judged.
    async fn attempt(&self) -> Result<WorkloadSecret, Failure> {
        let identity = &self.config.identity;
        let held = self.publisher.workload();
        let held = held.filter(|held| held.secret.is_valid_at(clock::now()));
        let key = self
            .ca
            .key(held.as_ref().map(|held| held.secret.public_key()))?;
        let csr = create_csr_pem(&key, &[SubjectName::Spiffe(identity.clone())])?;
        let started = Instant::now();
        let answer = self.ca.sign(csr, self.config.lifetime).await;
        self.metrics.asked(started.elapsed());
        Ok(WorkloadSecret::verified(
            &key,
            answer?,
            identity,
            clock::now(),
        )?)
    }

    /// Publishes, and says when to renew.
    async fn succeeded(
        &mut self,
        secret: Arc<WorkloadSecret>,
        now: OffsetDateTime,
    ) -> OffsetDateTime {
        // Measured from now and not from the start of validity, which a CA sets back: with a
        // lifetime of seconds, half of the whole span may lie in the past.
        let renew = self
            .config
            .renewal
            .renew_at(now, secret.not_after(), random_unit());
        let next = renew.max(now + LEAST_WAIT);
        tracing::info!(
            serial = secret.serial(),
            expires = clock::show(secret.not_after()),
            renewal = clock::show(next),
            "obtained a certificate"
        );
        self.publisher.report(|progress| {
            progress.last_success = Some(now);
            progress.expires = Some(secret.not_after());
            progress.last_error = None;
            progress.next_attempt = Some(next);
        });
        self.install(secret, now).await;
        next
    }

    /// Publishes a new secret: first the roots, if there are new ones, and then the rest.
    async fn install(&mut self, secret: Arc<WorkloadSecret>, now: OffsetDateTime) {
        let held = self.publisher.workload();
        let held = held.filter(|held| held.secret.is_valid_at(now));
        if let Some(old) = &held {
            let old = &old.secret;
            self.overlap
                .replaced(old.roots(), old.not_after(), secret.roots());
        }
        let roots = self.overlap.with(secret.roots(), now);
        // Without a valid certificate, clients have waited long enough.
        if held.is_some_and(|held| held.roots != roots) {
            tracing::info!(roots = roots.certificates().len(), "the roots have changed");
            if let Some(version) = self.publisher.publish_roots(&roots, now) {
                let audience = self.publisher.audience();
                audience.have_answered(&version, ROOTS_HEAD_START).await;
            }
        }
        self.publisher.publish(Workload { secret, roots }, now);
    }

    /// Reports, and says when to try again.
    fn failed(&self, failure: &Failure, next: OffsetDateTime) -> OffsetDateTime {
        self.metrics.failed();
        let error = one_line(failure);
        // The attempt may have taken longer than the certificate had left.
        let now = clock::now();
        match self.publisher.workload().map(|workload| workload.secret) {
            Some(kept) if kept.is_valid_at(now) => tracing::warn!(
                error,
                retry = clock::show(next),
                expires = clock::show(kept.not_after()),
                "cannot renew; the certificate is kept"
            ),
            _ => tracing::warn!(
                error,
                retry = clock::show(next),
                "cannot obtain a certificate"
            ),
        }
        self.publisher.report(|progress| {
            progress.last_error = Some(error.into());
            progress.next_attempt = Some(next);
        });
        next
    }

    /// Waits for the next attempt, and does meanwhile what becomes due.
    async fn wait(&mut self, next: OffsetDateTime) {
        while let Some((at, due)) = self.due_before(next) {
            clock::sleep_until(at).await;
            let now = clock::now();
            let Some(workload) = self.publisher.workload() else {
                break;
            };
            match due {
                Due::Expiry => {
                    self.expiry_told = Some(at);
                    tracing::error!(at = clock::show(at), "the certificate has expired");
                }
                Due::OverlapEnd => {
                    let roots = self.overlap.with(workload.secret.roots(), now);
                    tracing::info!("replaced roots are no longer needed");
                    self.publisher.publish(Workload { roots, ..workload }, now);
                }
            }
        }
        clock::sleep_until(next).await;
    }

    /// What happens by itself before `next`, and when.
    fn due_before(&self, next: OffsetDateTime) -> Option<(OffsetDateTime, Due)> {
        let workload = self.publisher.workload()?;
        let expiry = Some(workload.secret.not_after()).filter(|at| self.expiry_told != Some(*at));
        let due = [
            (expiry, Due::Expiry),
            (self.overlap.next_end(), Due::OverlapEnd),
        ];
        due.into_iter()
            .filter_map(|(at, due)| Some((at?, due)))
            .filter(|(at, _)| *at <= next)
            .min_by_key(|(at, _)| *at)
    }
}

/// What happens between two attempts.
enum Due {
    /// The certificate ends without a successor.
    Expiry,
    /// Nobody needs a replaced root any more.
    OverlapEnd,
}

/// Not before `least` has passed, so that what changes all the time is no load for a CA.
async fn later(least: Duration, event: BoxFuture<'static, ()>) {
    tokio::time::sleep(least).await;
    event.await;
}

/// A back-off never sleeps through the certificate's end: at most half of what is left.
fn retry_wait(backoff: Duration, held: Option<&WorkloadSecret>, now: OffsetDateTime) -> Duration {
    let left = held.and_then(|secret| Duration::try_from(secret.not_after() - now).ok());
    match left {
        Some(left) if !left.is_zero() => backoff.min((left / 2).max(LEAST_WAIT)),
        _ => backoff,
    }
}

/// Why an attempt gave no secret.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot make a key")]
    Key(#[from] KeyError),
    #[error("cannot make a certificate request")]
    Csr(#[from] CreateCsrError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

/// An error and its causes, as one line.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Wrappers like to repeat what they wrap.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        secrets::testing::{HOUR, Lineage},
        transport::TransportError,
    };

    #[test]
    fn without_a_certificate_the_back_off_decides() {
        let now = clock::now();
        assert_eq!(retry_wait(LONGEST_BACKOFF, None, now), LONGEST_BACKOFF);
    }

    #[test]
    fn retries_speed_up_towards_the_end_of_a_certificate() {
        let secret = Lineage::new().next();
        let wait =
            |left: Duration| retry_wait(LONGEST_BACKOFF, Some(&secret), secret.not_after() - left);
        assert_eq!(wait(HOUR), LONGEST_BACKOFF);
        assert_eq!(wait(Duration::from_secs(10)), Duration::from_secs(5));
        assert_eq!(wait(Duration::from_millis(10)), LEAST_WAIT);
        // Nothing left to save.
        assert_eq!(wait(Duration::ZERO), LONGEST_BACKOFF);
    }

    #[test]
    fn a_failure_is_one_line_with_its_causes() {
        let error = Failure::Ca(CaError::Transport(TransportError::Connect {
            address: "127.0.0.1:1".to_owned(),
            source: std::io::Error::other("connection refused"),
        }));
        let line = one_line(&error);
        assert_eq!(line, "cannot connect to 127.0.0.1:1: connection refused");
    }
}
