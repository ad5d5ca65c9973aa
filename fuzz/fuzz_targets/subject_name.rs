#![no_main]

use ca_core::{Csr, SigningRequest, SubjectName, create_csr_pem};
use ca_ra::ScreenedRequest;
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::certified::certify;
use mesh_ca_fuzz::fixed::{HOUR, WORKLOAD_KEY};

// A name can be asked for, screened and certified, and comes out as it went in.
fuzz_target!(|text: &str| {
    let Ok(name) = text.parse::<SubjectName>() else {
        return;
    };
    assert_eq!(name.to_string().parse(), Ok(name.clone()));
    let pem = create_csr_pem(&*WORKLOAD_KEY, std::slice::from_ref(&name)).expect("a request");
    let csr = Csr::from_pem(pem.as_bytes()).expect("what we write reads");
    certify(&csr, &name);

    let is_identity = matches!(name, SubjectName::Spiffe(_));
    let screened = ScreenedRequest::screen(SigningRequest::new(csr, vec![name], HOUR));
    assert_eq!(screened.is_ok(), is_identity);
});
