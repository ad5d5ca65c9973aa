//! The little DER that signing needs: definite lengths are known before a byte is written, so that
//! a certificate is assembled in one buffer, without a tree and without a second pass.

use time::OffsetDateTime;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// A context-specific tag that holds other values, as `[n] EXPLICIT` does.
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// A context-specific tag that holds bytes, as `[n] IMPLICIT` on a string does.
pub(crate) const fn context_primitive(number: u8) -> u8 {
    0x80 | number
}

/// Bytes that a value of `content` bytes takes with its tag and length.
pub(crate) const fn encoded_len(content: usize) -> usize {
    let length_bytes = match content {
        0..=0x7f => 1,
        0x80..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xff_ffff => 4,
        _ => 5,
    };
    1 + length_bytes + content
}

/// Writes tag and length of a value whose `content` bytes the caller writes next.
pub(crate) fn put_header(out: &mut Vec<u8>, tag: u8, content: usize) {
    out.push(tag);
    let bytes = content.to_be_bytes();
    // What the length needs beyond its first byte; in the short form that byte is the length.
    let extra = encoded_len(content) - content - 2;
    if extra > 0 {
        out.push([0x80, 0x81, 0x82, 0x83, 0x84][extra]);
    }
    out.extend_from_slice(&bytes[bytes.len() - extra.max(1)..]);
}

/// Writes a whole value.
pub(crate) fn put(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    put_header(out, tag, content.len());
    out.extend_from_slice(content);
}

/// A value made of others.
pub(crate) fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(encoded_len(content));
    put_header(&mut out, tag, content);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A bit string without unused bits, as keys and signatures are.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    wrap(BIT_STRING, &[&[0], bytes])
}

/// One extension: its value is the DER of `parts`, one after the other.
pub(crate) fn extension(oid: &[u8], critical: bool, parts: &[&[u8]]) -> Vec<u8> {
    let flag: &[u8] = if critical { &[BOOLEAN, 1, 0xff] } else { &[] };
    wrap(
        SEQUENCE,
        &[&wrap(OID, &[oid]), flag, &wrap(OCTET_STRING, parts)],
    )
}

/// A time as certificates hold it: two-digit years through 2049, four digits from 2050 (RFC 5280, 4.1.2.5).
pub(crate) fn put_time(out: &mut Vec<u8>, time: OffsetDateTime) {
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second) = time.to_hms();
    // Two digits each: no calendar of ours leaves the years 0 to 9999.
    let (century, year) = ((year / 100) as u8, (year % 100) as u8);
    let digits = [century, year, month.into(), day, hour, minute, second]
        .map(|number| [b'0' + number / 10, b'0' + number % 10]);
    let (tag, digits) = if has_two_digit_year(time) {
        (0x17, &digits[1..])
    } else {
        (0x18, &digits[..])
    };
    put_header(out, tag, 2 * digits.len() + 1);
    out.extend_from_slice(digits.as_flattened());
    out.push(b'Z');
}

/// Bytes that [`put_time`] writes.
pub(crate) fn time_len(time: OffsetDateTime) -> usize {
    if has_two_digit_year(time) { 15 } else { 17 }
}

fn has_two_digit_year(time: OffsetDateTime) -> bool {
    (1950..2050).contains(&time.year())
}

/// Object identifiers, as the content bytes of their encoding.
pub(crate) mod oid {
    pub(crate) const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    pub(crate) const ORGANIZATION: &[u8] = &[0x55, 4, 10];
    pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
    pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
    pub(crate) const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 30];
    pub(crate) const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 35];
    pub(crate) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
    pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
    pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
    pub(crate) const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];
}

#[cfg(test)]
mod tests {
    use der::{Decode as _, Encode as _};
    use time::macros::datetime;

    use super::*;

    #[test]
    fn lengths_are_the_shortest_form_at_every_boundary() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let ours = wrap(OCTET_STRING, &[&vec![7; length]]);
            let theirs = der::asn1::OctetString::new(vec![7; length])
                .unwrap()
                .to_der()
                .unwrap();
            assert_eq!(ours, theirs, "{length}");
            assert_eq!(ours.len(), encoded_len(length));
        }
    }

    #[test]
    fn times_turn_to_four_digit_years_in_2050() {
        for (time, tag) in [
            (datetime!(2026-11-21 13:00:09 UTC), 0x17),
            (datetime!(2049-12-31 23:59:59 UTC), 0x17),
            (datetime!(2050-01-01 0:00 UTC), 0x18),
        ] {
            let mut out = Vec::new();
            put_time(&mut out, time);
            assert_eq!((out[0], out.len()), (tag, time_len(time)));
            let seconds = if tag == 0x17 {
                der::asn1::UtcTime::from_der(&out)
                    .unwrap()
                    .to_unix_duration()
            } else {
                der::asn1::GeneralizedTime::from_der(&out)
                    .unwrap()
                    .to_unix_duration()
            };
            assert_eq!(
                i64::try_from(seconds.as_secs()).unwrap(),
                time.unix_timestamp()
            );
        }
    }
}
