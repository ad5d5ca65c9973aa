//! Durations as Istio writes them: `90s`, `1h30m`, `24h` in configuration, `3h0m0s` in messages.

use std::time::Duration;

/// Reads a duration: decimal numbers, each with a unit `ns`, `us`, `µs`, `ms`, `s`, `m` or `h`.
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(ca_core::parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
/// assert_eq!(ca_core::parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
/// assert!(ca_core::parse_duration("24").is_err());
/// ```
///
/// # Errors
/// When a number or a unit is missing or unknown, or the sum is beyond 292 years (Go's limit).
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let bad = || DurationError {
        text: text.chars().take(40).collect(),
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u128 = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let unit_at = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(bad)?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(bad)?
            .1;
        total = total
            .checked_add(nanoseconds(number, unit).ok_or_else(bad)?)
            .ok_or_else(bad)?;
        rest = tail;
    }
    match u64::try_from(total) {
        Ok(nanos) if nanos <= MAX_NANOSECONDS => Ok(Duration::from_nanos(nanos)),
        _ => Err(bad()),
    }
}

/// Writes a duration as Go prints it: `3h0m0s`, `1m30s`, `1.5s`, `250ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < SECOND {
        let (name, unit) = match nanos {
            1_000_000.. => ("ms", 1_000_000),
            1_000.. => ("µs", 1_000),
            _ => ("ns", 1),
        };
        return decimal(nanos, unit) + name;
    }
    let (hours, rest) = (nanos / HOUR, nanos % HOUR);
    let (minutes, rest) = (rest / MINUTE, rest % MINUTE);
    let seconds = decimal(rest, SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: {text:?} (write it like 90s, 1h30m or 24h)")]
pub struct DurationError {
    text: String,
}

fn nanoseconds(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    // Beyond the twelfth digit no unit has a nanosecond left to give.
    let digits = &fraction[..fraction.len().min(12)];
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    let part = if digits.is_empty() {
        0
    } else {
        digits.parse::<u128>().ok()?
    };
    whole.checked_mul(unit)?.checked_add(part * unit / scale)
}

fn decimal(value: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').into()
}

const SECOND: u128 = 1_000_000_000;
const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;
const UNITS: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", MINUTE),
    ("h", HOUR),
];
/// Go keeps durations in a signed 64-bit count of nanoseconds.
const MAX_NANOSECONDS: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("90s", 90_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("87600h", 315_360_000_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("300ms", 300_000_000),
            ("1h0m0.25s", 3_600_250_000_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_nanos(nanos)),
                "{text}"
            );
        }
        for bad in [
            "",
            "24",
            "h",
            "1 h",
            "-1s",
            "1d",
            "1x",
            "1..5s",
            ".s",
            "10000000h",
            "1h30",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (seconds, text) in [
            (10_800.0, "3h0m0s"),
            (90.0, "1m30s"),
            (1.5, "1.5s"),
            (0.25, "250ms"),
            (0.0, "0s"),
        ] {
            assert_eq!(format_duration(Duration::from_secs_f64(seconds)), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(nanos in 0..=MAX_NANOSECONDS) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_judged_without_a_panic(text in "[0-9.a-zµ-]{0,20}") {
            let _ = parse_duration(&text);
        }
    }
}
