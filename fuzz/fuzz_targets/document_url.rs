#![no_main]

use std::net::IpAddr;

use ca_auth::{DocumentUrl, KeyPlace};
use libfuzzer_sys::fuzz_target;

// Keys come from an encrypted place or from this machine, over the port that is written there, and never with a password
// in the address.
fuzz_target!(|text: &str| {
    if let Ok(place) = KeyPlace::discovered(text) {
        let base = text.strip_suffix('/').unwrap_or(text);
        let document = format!("{base}/.well-known/openid-configuration");
        assert!(document.parse::<DocumentUrl>().is_ok());
        assert!(
            place
                .to_string()
                .ends_with("/.well-known/openid-configuration")
        );
    }
    let Ok(url) = text.parse::<DocumentUrl>() else {
        return;
    };
    assert_eq!(url.to_string().parse(), Ok(url.clone()));
    let printed = url.to_string();
    let (scheme, rest) = printed.split_once("://").expect("a scheme");
    assert_eq!(scheme == "https", url.is_encrypted());
    // What could end the line of a request that asks for it.
    assert!(!text.bytes().any(|byte| byte <= b' ' || byte == b'#'));
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    assert!(authority.is_ascii() && !authority.contains('@'));
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').expect("a bracket"),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    assert!(!host.is_empty());
    assert!(
        port.is_empty() || port == ":" || port[1..].parse::<u16>().is_ok(),
        "another port than {port} would be asked"
    );
    if scheme != "https" {
        assert_eq!(scheme, "http");
        let address = host.parse::<IpAddr>();
        assert!(host == "localhost" || address.is_ok_and(|address| address.is_loopback()));
    }
});
