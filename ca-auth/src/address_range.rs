//! Ranges of network addresses, and the proxies that are in them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::evidence::Evidence;

/// A range of addresses such as `10.0.0.0/8` or `2001:db8::/32`. One address alone is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// Without the bits behind the prefix.
    first: IpAddr,
    prefix: u8,
}

impl AddressRange {
    /// Whether the address is in the range. An IPv4 address that is written as IPv6 (`::ffff:10.0.0.1`) is
    /// an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix) == Some(self.first)
            && address.to_canonical().is_ipv4() == self.first.is_ipv4()
    }
}

/// `None` when an address has fewer bits than that.
fn masked(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let prefix = u32::from(prefix);
    Some(match address {
        IpAddr::V4(address) => {
            let behind = 32_u32.checked_sub(prefix)?;
            let mask = u32::MAX.checked_shl(behind).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let behind = 128_u32.checked_sub(prefix)?;
            let mask = u128::MAX.checked_shl(behind).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    })
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    /// Bits behind the prefix are dropped, as Istio does.
    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        let read = || {
            let (address, prefix) = match text.split_once('/') {
                Some((address, prefix)) => (address, Some(prefix)),
                None => (text, None),
            };
            let address: IpAddr = address.parse().ok()?;
            let prefix = match prefix {
                None if address.is_ipv4() => 32,
                None => 128,
                // `parse` alone would take a plus sign.
                Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                    digits.parse().ok()?
                }
                Some(_) => return None,
            };
            let first = masked(address, prefix)?;
            Some(Self { first, prefix })
        };
        read().ok_or_else(|| AddressRangeError { text: text.into() })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// The text is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a range of addresses such as 10.0.0.0/8")]
pub struct AddressRangeError {
    text: String,
}

/// The addresses of proxies that tell truthfully whose certificate they have seen.
///
/// Loopback addresses are not among them unless they are named. (Istio always trusts them: then every
/// process beside the server can be anybody.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<AddressRange>);

impl TrustedProxies {
    /// The proxies at these addresses. **Whoever can connect from one of them can call itself anything in
    /// the mesh**, as long as it speaks to us directly.
    pub fn new(ranges: Vec<AddressRange>) -> Self {
        Self(ranges)
    }

    /// Whether a request comes from one of them.
    pub fn sent(&self, evidence: &Evidence) -> bool {
        let address = evidence.peer_address();
        address.is_some_and(|address| self.0.iter().any(|range| range.contains(address.ip())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_the_addresses_that_share_its_prefix() {
        for (range, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..],
                &["11.0.0.0", "::", "a00::"][..],
            ),
            ("10.1.2.3/8", &["10.9.9.9"], &["11.1.2.3"]),
            ("10.1.2.3", &["10.1.2.3"], &["10.1.2.4", "127.0.0.1"]),
            ("10.1.2.3/32", &["10.1.2.3"], &["10.1.2.2"]),
            ("0.0.0.0/0", &["1.2.3.4"], &["::1", "::"]),
            (
                "::/0",
                &["::1", "2001:db8::1"],
                &["1.2.3.4", "::ffff:1.2.3.4"],
            ),
            (
                "2001:db8::/33",
                &["2001:db8:7fff::1"],
                &["2001:db8:8000::1"],
            ),
            ("::1", &["::1"], &["::2", "127.0.0.1"]),
        ] {
            let parsed: AddressRange = range.parse().unwrap();
            for address in inside {
                assert!(
                    parsed.contains(address.parse().unwrap()),
                    "{address} in {range}"
                );
            }
            for address in outside {
                assert!(
                    !parsed.contains(address.parse().unwrap()),
                    "{address} in {range}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "localhost",
            "10.0.0.0/255.0.0.0",
            "010.0.0.1",
        ] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad:?}");
        }
        let range: AddressRange = "10.1.2.3/16".parse().unwrap();
        assert_eq!(range.to_string(), "10.1.0.0/16");
    }
}
