//! Every wait has an end.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Longer than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The outcome of something that should not take long.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("no {what} in {} s", DEADLINE.as_secs()),
    }
}

/// Tries until there is a value, for what gives no event; the last reason why there is none ends up in the panic.
pub(crate) async fn eventually<T, Attempt>(what: &str, mut attempt: impl FnMut() -> Attempt) -> T
where
    Attempt: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + DEADLINE;
    loop {
        match timeout(DEADLINE, attempt()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(reason)) => {
                assert!(
                    Instant::now() < end,
                    "no {what} in {} s: {reason}",
                    DEADLINE.as_secs()
                );
            }
            Err(_) => panic!("no {what} in {} s, and no answer", DEADLINE.as_secs()),
        }
        sleep(Duration::from_millis(50)).await;
    }
}
