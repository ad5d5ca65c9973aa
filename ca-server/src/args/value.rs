//! What the value of a flag must be, and how that is said where it is not.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use ca_core::{format_duration, parse_duration};

/// Where to listen, or whom to ask. Names are not looked up.
pub(super) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "not an IP address with a port (write it like 127.0.0.1:15012 or [::1]:15012)")
}

pub(super) fn ip_address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse()
        .map_err(|_| "not an IP address (write it like 127.0.0.1 or ::1)")
}

/// A whole number within `range`, which a `T` can hold.
pub(super) fn number<T: FromStr>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number
            .and_then(|number| number.to_string().parse().ok())
            .ok_or_else(|| match (range.start(), range.end()) {
                (least, &u64::MAX) => format!("not a whole number from {least} on"),
                (least, most) => format!("not a whole number from {least} to {most}"),
            })
    }
}

/// What is shorter or longer is refused, because something else would be done.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| match parse_duration(text) {
        Err(error) => Err(error.to_string()),
        Ok(duration) if duration < *range.start() => {
            Err(format!("at least {}", format_duration(*range.start())))
        }
        Ok(duration) if duration > *range.end() => {
            Err(format!("at most {}", format_duration(*range.end())))
        }
        Ok(duration) => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn what_cannot_be_is_told_by_what_is_expected() {
        assert_eq!(address("[::1]:0").unwrap().port(), 0);
        for wrong in ["localhost:15012", "127.0.0.1", ":15012", ""] {
            let said = address(wrong).unwrap_err();
            assert!(
                said.starts_with("not an IP address with a port ("),
                "{said}"
            );
        }
        assert!(
            ip_address("localhost")
                .unwrap_err()
                .starts_with("not an IP address (")
        );

        let percent = number::<u8>(0..=100);
        assert_eq!((percent("0"), percent("100")), (Ok(0), Ok(100)));
        for wrong in ["101", "300", "-1", "many", ""] {
            let expected = Err("not a whole number from 0 to 100".to_owned());
            assert_eq!(percent(wrong), expected, "{wrong:?}");
        }
        let count = number::<NonZeroUsize>(1..=u64::MAX);
        assert_eq!(count("7").unwrap().get(), 7);
        assert_eq!(count("0").unwrap_err(), "not a whole number from 1 on");

        let seconds = Duration::from_secs;
        let some = duration(seconds(1)..=seconds(300));
        assert_eq!((some("1s"), some("5m")), (Ok(seconds(1)), Ok(seconds(300))));
        assert_eq!(some("999ms").unwrap_err(), "at least 1s");
        assert_eq!(some("301s").unwrap_err(), "at most 5m0s");
        assert!(some("soon").unwrap_err().starts_with("not a duration: "));
    }
}
