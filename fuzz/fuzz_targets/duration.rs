#![no_main]

use ca_core::{format_duration, parse_duration};
use libfuzzer_sys::fuzz_target;

// A duration that reads fits into Go's, and is the same after it was printed.
fuzz_target!(|text: &str| {
    let Ok(duration) = parse_duration(text) else {
        return;
    };
    assert!(i64::try_from(duration.as_nanos()).is_ok());
    let printed = format_duration(duration);
    assert_eq!(parse_duration(&printed), Ok(duration));
    assert!(printed.starts_with(|first: char| first.is_ascii_digit()));
});
