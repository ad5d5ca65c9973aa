//! The one place that reads the clock: everything else is told what time it is.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The time of day, in UTC.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the edge that reads the clock"
)]
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Returns when the time of day is `at` or later.
pub(crate) async fn sleep_until(at: OffsetDateTime) {
    // In slices: a timer stands still while the machine is suspended, and certificates do not.
    const SLICE: Duration = Duration::from_secs(30);
    while let Ok(left) = Duration::try_from(at - now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(SLICE)).await;
    }
}

/// As people and machines both read it: `2026-11-21T13:00:00Z`.
pub(crate) fn show(at: OffsetDateTime) -> String {
    let second = at.replace_nanosecond(0).unwrap_or(at);
    second
        .format(&Rfc3339)
        .unwrap_or_else(|_| second.to_string())
}
