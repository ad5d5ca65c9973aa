#![no_main]

use std::net::IpAddr;

use ca_auth::AddressRange;
use libfuzzer_sys::fuzz_target;

// A range and an address, one in each line: the address is in the range if it begins with the same bits.
fuzz_target!(|text: &str| {
    let (range_text, address) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(range) = range_text.parse::<AddressRange>() else {
        // What others read as an address is a range.
        assert!(range_text.parse::<IpAddr>().is_err());
        return;
    };
    let printed = range.to_string();
    assert_eq!(printed.parse(), Ok(range));
    let (first, prefix) = printed.split_once('/').expect("printed with its prefix");
    let first: IpAddr = first.parse().expect("printed with its address");
    let prefix: usize = prefix.parse().expect("printed with its prefix");
    let start = range_text.split('/').next().unwrap_or_default();
    let start: IpAddr = start.parse().expect("it started with an address");
    assert_eq!(&bits(first)[..prefix], &bits(start)[..prefix]);
    assert!(bits(first)[prefix..].iter().all(|bit| !bit));

    for address in address.parse::<IpAddr>().iter().chain([&first, &start]) {
        // An IPv4 address in the clothes of IPv6 is an IPv4 address.
        let address = address.to_canonical();
        let is_in = address.is_ipv4() == first.is_ipv4()
            && bits(address)[..prefix] == bits(first)[..prefix];
        assert_eq!(range.contains(address), is_in);
        if let IpAddr::V4(v4) = address {
            assert_eq!(range.contains(v4.to_ipv6_mapped().into()), is_in);
        }
    }
});

fn bits(address: IpAddr) -> Vec<bool> {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let bits = |byte: u8| (0..8).rev().map(move |bit| byte >> bit & 1 == 1);
    bytes.into_iter().flat_map(bits).collect()
}
