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
