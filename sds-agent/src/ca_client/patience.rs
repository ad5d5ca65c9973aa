//! How long a CA is waited for, and how often it is asked at once: one policy for all of them.

use std::{fmt::Display, time::Duration};

use ca_core::random_unit;

use super::CaError;
use crate::metrics::Metrics;

/// How long one request may take, connecting and quick repetitions included.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// How long to wait before a request is repeated at once, each time give or take a tenth: what Istio's
/// agent does. After the last, whoever keeps the certificate waits longer.
const QUICK_WAITS: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// A few tries in quick succession, where that may help.
pub(super) async fn with_quick_repetitions<T, F: Future<Output = Result<T, CaError>>>(
    metrics: &Metrics,
    mut ask: impl FnMut() -> F,
) -> Result<T, CaError> {
    for wait in QUICK_WAITS {
        // In a box, because this future holds two of them otherwise, and each is large.
        match Box::pin(ask()).await {
            Err(error) if error.is_passing() => {
                tracing::debug!(%error, "asking again in a moment");
                let jitter = 0.9 + 0.2 * random_unit();
                tokio::time::sleep(wait.mul_f64(jitter)).await;
                metrics.retried();
            }
            outcome => return outcome,
        }
    }
    Box::pin(ask()).await
}

/// What comes within the deadline.
pub(super) async fn in_time<T>(
    address: &impl Display,
    answer: impl Future<Output = Result<T, CaError>>,
) -> Result<T, CaError> {
    let answer = tokio::time::timeout(DEADLINE, answer);
    answer.await.unwrap_or_else(|_| {
        Err(CaError::TimedOut {
            address: address.to_string(),
            limit: DEADLINE,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;
    use tonic::Code;

    use super::*;

    /// Istio's agent, code by code: five times at most, after 100 ms and each time twice as long, give or take a tenth.
    #[tokio::test(start_paused = true)]
    async fn what_istios_agent_tries_again_is_tried_again_and_nothing_else() {
        for code in (0..=16)
            .map(Code::from_i32)
            .filter(|code| *code != Code::Ok)
        {
            let (metrics, tries, start) = (Metrics::new(), Cell::new(0), Instant::now());
            let outcome = with_quick_repetitions(&metrics, || {
                tries.set(tries.get() + 1);
                std::future::ready(Err::<(), _>(CaError::Refused {
                    address: "ca".into(),
                    code,
                    message: "no".into(),
                }))
            });
            assert!(outcome.await.is_err());
            let (expected, waits) = match code {
                Code::Cancelled
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Internal
                | Code::Unavailable => (5, 1350..=1660),
                _ => (1, 0..=0),
            };
            assert_eq!(tries.get(), expected, "{code:?}");
            let waited = start.elapsed().as_millis();
            assert!(waits.contains(&waited), "{code:?}: {waited} ms");
        }
    }
}
