#![no_main]

use ca_core::{Csr, SigningRequest};
use ca_ra::ScreenedRequest;
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::fixed::{CART, HOUR, cart};
use mesh_ca_fuzz::{der, second_opinion};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

// A request that may be forwarded asks for the granted name alone, also in the eyes of another reader.
fuzz_target!(|input: &[u8]| {
    let (subject, attributes) = der::two_parts(input);
    let csr = Csr::from_der(&der::request(subject, attributes)).expect("a request");
    let request = SigningRequest::new(csr, vec![cart()], HOUR);
    let Ok(screened) = ScreenedRequest::screen(request) else {
        return;
    };
    let (_, theirs) = X509CertificationRequest::from_der(screened.csr().der())
        .expect("others can read what we forward");
    let info = &theirs.certification_request_info;
    assert!(
        info.subject
            .iter_attributes()
            .all(|a| a.as_slice().is_empty())
    );
    assert_eq!(info.attributes().len(), 1);
    let requested = second_opinion::requested(&theirs);
    let [(oid, _, value)] = requested.as_slice() else {
        panic!("{} extensions are asked for", requested.len());
    };
    assert_eq!(oid, "2.5.29.17");
    let name = der::wrap(0x86, &[CART.as_bytes()]);
    assert_eq!(*value, der::wrap(der::SEQUENCE, &[&name]));
});
