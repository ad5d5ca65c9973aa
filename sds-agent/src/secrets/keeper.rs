//! The task that owns the workload's secret: obtain, publish, sleep until renewal, back off.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ca_core::{
    Backoff, CreateCsrError, KeyError, KeyKind, PrivateKey, SubjectName, create_csr_pem,
    random_unit,
};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Publisher, WorkloadSecret, workload_secret::Unfit};
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

/// Owns the secret. **A valid secret is never given up before its successor is there.**
pub(crate) struct Keeper {
    config: WorkloadConfig,
    ca: Box<dyn CaClient>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    /// Rung when somebody wants a renewal now.
    renew_now: Arc<Notify>,
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
        }
    }

    /// Keeps the secret until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(LEAST_WAIT, LONGEST_BACKOFF);
        // Also the last secret that has expired: the next one continues its numbering.
        let mut latest: Option<Arc<WorkloadSecret>> = None;
        loop {
            let attempt = tokio::select! {
                () = stop.cancelled() => return,
                attempt = self.attempt(latest.as_deref()) => attempt,
            };
            let now = clock::now();
            let failed = attempt.is_err();
            let next = match attempt {
                Ok(secret) => {
                    backoff.reset();
                    let secret = Arc::new(secret);
                    latest = Some(Arc::clone(&secret));
                    self.succeeded(secret, now)
                }
                Err(error) => {
                    let wait = retry_wait(backoff.next(random_unit()), latest.as_deref(), now);
                    self.failed(&error, now + wait)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.renew_now.notified() => tracing::info!("renewing now, as told"),
                () = self.wait(next) => {}
            }
            if failed {
                self.metrics.retried();
            }
        }
    }

    /// One key, one CSR, one answer, judged.
    async fn attempt(&self, previous: Option<&WorkloadSecret>) -> Result<WorkloadSecret, Failure> {
        let identity = &self.config.identity;
        // A fresh key each time: a key that leaked once is worth one lifetime.
        let key = PrivateKey::generate(KeyKind::EcdsaP256)?;
        let csr = create_csr_pem(&key, &[SubjectName::Spiffe(identity.clone())])?;
        let started = Instant::now();
        let answer = self.ca.sign(csr, self.config.lifetime).await;
        self.metrics.asked(started.elapsed());
        Ok(WorkloadSecret::verified(
            &key,
            answer?,
            identity,
            previous,
            clock::now(),
        )?)
    }

    /// Publishes, and says when to renew.
    fn succeeded(&self, secret: Arc<WorkloadSecret>, now: OffsetDateTime) -> OffsetDateTime {
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
        self.publisher.publish(Some(secret));
        next
    }

    /// Reports, and says when to try again.
    fn failed(&self, failure: &Failure, next: OffsetDateTime) -> OffsetDateTime {
        self.metrics.failed();
        let error = one_line(failure);
        // The attempt may have taken longer than the certificate had left.
        self.withdraw_if_expired(clock::now());
        match self.publisher.current() {
            Some(kept) => tracing::warn!(
                error,
                retry = clock::show(next),
                expires = clock::show(kept.not_after()),
                "cannot renew; the certificate is kept"
            ),
            None => tracing::warn!(
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

    /// Waits for the next attempt, and withdraws the secret if it expires before that.
    async fn wait(&self, next: OffsetDateTime) {
        if let Some(expiry) = self.publisher.current().map(|secret| secret.not_after())
            && expiry <= next
        {
            clock::sleep_until(expiry).await;
            self.withdraw_if_expired(clock::now());
        }
        clock::sleep_until(next).await;
    }

    fn withdraw_if_expired(&self, now: OffsetDateTime) {
        if let Some(secret) = self.publisher.current()
            && !secret.is_valid_at(now)
        {
            tracing::error!(
                at = clock::show(secret.not_after()),
                "the certificate has expired"
            );
            self.publisher.publish(None);
        }
    }
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
    use crate::secrets::testing::{HOUR, Lineage};

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
        let error = Failure::Ca(CaError::Connect {
            address: "127.0.0.1:1".to_owned(),
            source: std::io::Error::other("connection refused"),
        });
        let line = one_line(&error);
        assert_eq!(
            line,
            "cannot connect to the CA at 127.0.0.1:1: connection refused"
        );
    }
}
