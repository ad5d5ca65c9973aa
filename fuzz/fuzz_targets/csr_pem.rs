#![no_main]

use ca_core::{Csr, CsrError};
use libfuzzer_sys::fuzz_target;

// The quick reader of PEM is only quicker: a request is what the `pem` crate finds in the text.
fuzz_target!(|text: &[u8]| {
    let ours = Csr::from_pem(text).map(|csr| csr.der().to_vec());
    if matches!(ours, Err(CsrError::TooLarge { .. })) {
        return;
    }
    let labels = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];
    let theirs = match pem::parse(text) {
        Ok(block) if labels.contains(&block.tag()) => {
            Csr::from_der(block.contents()).map(|csr| csr.der().to_vec())
        }
        _ => Err(CsrError::NotPem),
    };
    assert_eq!(ours, theirs);
});
