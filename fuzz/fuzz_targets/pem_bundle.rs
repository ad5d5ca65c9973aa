#![no_main]

use ca_core::{Certificate, CertificateChain, TrustBundle};
use libfuzzer_sys::fuzz_target;
use pki_types::{CertificateDer, pem::PemObject as _};

// The three readers of certificate files agree; what they write, they and rustls read back the same.
fuzz_target!(|text: &[u8]| {
    let all = Certificate::all_from_pem(text);
    let chain = CertificateChain::from_pem(text);
    let roots = TrustBundle::from_pem(text);
    let Ok(all) = all else {
        assert!(chain.is_err() && roots.is_err());
        return;
    };
    let chain = chain.expect("certificates are a chain");
    assert!(chain.iter().eq(&all));
    let written = chain.to_pem();
    assert_eq!(CertificateChain::from_pem(written.as_bytes()), Ok(chain));
    let theirs = CertificateDer::pem_slice_iter(written.as_bytes());
    let theirs: Vec<_> = theirs.collect::<Result<_, _>>().expect("rustls reads it");
    assert!(
        theirs
            .iter()
            .map(AsRef::as_ref)
            .eq(all.iter().map(Certificate::der))
    );

    assert_eq!(roots.is_ok(), all.iter().all(Certificate::is_ca));
    if let Ok(roots) = roots {
        assert!(all.iter().all(|certificate| roots.contains(certificate)));
        assert_eq!(roots.merge(&roots), roots);
        let again = TrustBundle::from_pem(roots.to_pem().as_bytes());
        assert_eq!(again, Ok(roots));
    }
});
