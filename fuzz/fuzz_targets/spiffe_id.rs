#![no_main]

use ca_core::{SpiffeId, TrustDomain};
use libfuzzer_sys::fuzz_target;

// A SPIFFE ID is printed as it was written, holds no character of another meaning, and is made of its parts.
fuzz_target!(|text: &str| {
    let Ok(id) = text.parse::<SpiffeId>() else {
        return;
    };
    assert_eq!(id.to_string(), text);
    assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
    assert!(text.len() <= 2048);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_/".contains(&b);
    assert!(text["spiffe://".len()..].bytes().all(plain));
    assert!(
        id.path()
            .split('/')
            .skip(1)
            .all(|s| !matches!(s, "" | "." | ".."))
    );

    let mesh: TrustDomain = id.trust_domain().parse().expect("a trust domain");
    assert!(id.is_in(&mesh));
    if let Some(workload) = id.as_workload() {
        let again = SpiffeId::workload(&mesh, workload.namespace, workload.service_account);
        assert_eq!(again, Ok(id.clone()));
    }
});
