#![no_main]

use ca_core::Csr;
use ca_core::crypto::AWS_LC_RS;
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::{certified::check_request, fixed::cart};

// Both cryptographic libraries agree on a request, and whatever is accepted can be signed without harm.
fuzz_target!(|der: &[u8]| {
    let by_ring = Csr::from_der(der);
    let by_aws_lc = Csr::from_der_with(der, &AWS_LC_RS);
    assert_eq!(by_ring.as_ref().err(), by_aws_lc.as_ref().err());
    for csr in [by_ring, by_aws_lc].into_iter().flatten() {
        assert_eq!(csr.der(), der);
        check_request(&csr, &cart());
    }
});
