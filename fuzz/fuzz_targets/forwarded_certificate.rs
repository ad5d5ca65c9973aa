#![no_main]

use ca_auth::ForwardedCertificate;
use ca_core::SpiffeId;
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::fixed::CART;
use mesh_ca_fuzz::forwarded::{self, HeaderText};

// Headers, one in each line. Nobody is believed but the proxy, and of its header nothing but what another reader finds
// in it; and no name that a certificate carries makes Envoy's header say anything else.
fuzz_target!(|text: &str| {
    let headers: Vec<_> = text.split('\n').take(3).collect();
    for header in &headers {
        if let Ok(elements) = ForwardedCertificate::parse_list(header) {
            forwarded::check_elements(header, &elements);
            let written = forwarded::write(&elements);
            let again = ForwardedCertificate::parse_list(&written);
            assert_eq!(again.as_ref(), Ok(&elements), "{written}");
        }
    }

    assert_eq!(forwarded::judge("192.0.2.1:1", &headers), None);
    assert_eq!(forwarded::judge("127.0.0.1:1", &headers), None);
    if let Some(names) = forwarded::judge("10.0.0.1:1", &headers) {
        let [header] = headers.as_slice() else {
            panic!("{} headers are believed", headers.len());
        };
        let [element] = &HeaderText::read(header).elements[..] else {
            panic!("more than one element is believed");
        };
        for name in &names {
            assert!(name.starts_with("spiffe://cluster.local/"));
            assert!(element.values("uri").any(|uri| uri == name));
        }
    }

    // What Envoy writes for the certificate of a workload: the subject is whatever a CA has let through.
    let header = forwarded::by_envoy(text, CART);
    match forwarded::judge("10.0.0.1:1", &[&header]) {
        Some(names) => assert_eq!(names, [CART]),
        None => assert!(header.len() > ForwardedCertificate::MAX_HEADER_BYTES),
    }
    if let Ok(id) = text.parse::<SpiffeId>() {
        let is_ours = id.trust_domain() == "cluster.local" && !id.path().is_empty();
        let names = forwarded::judge("10.0.0.1:1", &[&forwarded::by_envoy("CN=x", text)]);
        assert_eq!(names, is_ours.then(|| vec![text.to_owned()]));
    }
});
