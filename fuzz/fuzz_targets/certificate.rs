#![no_main]

use ca_core::{Certificate, CertificateChain, TrustBundle};
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::fixed::{AUTHORITY, NOW};
use mesh_ca_fuzz::second_opinion;

// A certificate keeps its bytes, says what webpki says, and leads to our root only if we signed it.
fuzz_target!(|der: &[u8]| {
    let Ok(certificate) = Certificate::from_der(der.to_vec()) else {
        return;
    };
    let again =
        Certificate::from_pem(certificate.to_pem().as_bytes()).expect("what we write reads");
    assert_eq!(again.der(), der);
    assert_eq!(again.names(), certificate.names());
    second_opinion::certificate(&certificate);
    let _ = format!("{certificate:?} {}", certificate.fingerprint());

    let as_root = TrustBundle::new([certificate.clone()]);
    assert_eq!(as_root.is_ok(), certificate.is_ca());
    let chain = CertificateChain::new(certificate, []);
    let ours = AUTHORITY.bundles().current();
    assert!(chain.verify(ours.roots(), NOW).is_err(), "a forgery");
    if let Ok(as_root) = as_root {
        let _ = chain.verify(&as_root, NOW);
    }
});
