#![no_main]

use ca_core::Csr;
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::{certified::check_request, der, fixed::cart};

// Whatever a request wishes for, it gets the fixed name for its key and nothing else.
fuzz_target!(|input: &[u8]| {
    let (subject, attributes) = der::two_parts(input);
    let csr = Csr::from_der(&der::request(subject, attributes));
    let csr = csr.expect("what a request wishes for is no reason to refuse it unread");
    check_request(&csr, &cart());
});
