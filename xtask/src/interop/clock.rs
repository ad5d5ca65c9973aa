//! The time of day: now, and as our programs print it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

/// The time of day.
#[expect(
    clippy::disallowed_methods,
    reason = "runs compare what happens with the dates in certificates and logs"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// From the seconds since 1970 that a certificate has.
pub(crate) fn from_seconds(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// Reads `2026-11-21T13:00:00Z`, with or without a fraction of up to six digits.
pub(crate) fn parse(text: &str) -> Result<SystemTime> {
    read(text).with_context(|| format!("not a time: {text:?}"))
}

/// When the first of these lines was written that contains the text.
pub(crate) fn line_time(log: &str, text: &str) -> Result<SystemTime> {
    let line = log.lines().find(|line| line.contains(text));
    stamp(line.with_context(|| format!("no line with {text:?}"))?)
}

/// The time at the start of a line.
pub(crate) fn stamp(line: &str) -> Result<SystemTime> {
    parse(line.split_whitespace().next().unwrap_or_default())
}

/// How much later the second is; nothing if it is not.
pub(crate) fn between(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

fn read(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let numbers = |text: &str, sign| -> Option<[u64; 3]> {
        let parts: Vec<_> = text
            .split(sign)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        parts.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let micros: u64 = format!("{fraction:0<6}").parse().ok()?;
    // A year that begins in March ends with the leap day, if it has one.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    let seconds = (days.checked_sub(719_469)? * 24 + hour) * 3600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_printed() {
        let at = |micros| UNIX_EPOCH + Duration::from_micros(micros);
        assert_eq!(parse("1970-01-01T00:00:00Z").unwrap(), at(0));
        assert_eq!(
            parse("2026-11-21T13:00:00.25Z").unwrap(),
            at(1_795_266_000_250_000)
        );
        assert_eq!(
            parse("2024-02-29T23:59:59.000001Z").unwrap(),
            at(1_709_251_199_000_001)
        );
        assert!(parse("never").is_err());
    }
}
