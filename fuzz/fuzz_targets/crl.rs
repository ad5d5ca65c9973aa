#![no_main]

use ca_core::RevocationLists;
use ca_core::crypto::RING;
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::fixed::AUTHORITY;
use pki_types::{CertificateRevocationListDer, pem::PemObject as _};
use webpki::BorrowedCertRevocationList;

// Lists are written as they were read, others read them too, and nobody signs one for our root.
fuzz_target!(|text: &[u8]| {
    let Ok(lists) = RevocationLists::from_pem(text) else {
        return;
    };
    let again = RevocationLists::from_pem(lists.to_pem().as_bytes());
    assert_eq!(again.expect("what we write reads"), lists);
    let theirs = CertificateRevocationListDer::pem_slice_iter(lists.to_pem().as_bytes());
    let theirs: Vec<_> = theirs.collect::<Result<_, _>>().expect("rustls reads it");
    assert_eq!(theirs.len(), lists.lists().len());
    for (ours, theirs) in lists.lists().iter().zip(&theirs) {
        // webpki is stricter: what it can read to the end must revoke as much.
        if let Ok(theirs) = BorrowedCertRevocationList::from_der(theirs)
            && let Ok(revoked) = theirs.into_iter().collect::<Result<Vec<_>, _>>()
        {
            assert_eq!(ours.revoked(), revoked.len());
        }
    }

    let ours = AUTHORITY.bundles().current();
    let root = ours.signing_certificate();
    assert!(
        lists
            .lists()
            .iter()
            .all(|list| !list.is_signed_by(root, &RING))
    );
    assert!(lists.cover([root], &RING).is_err());
    assert_eq!(lists.cover([], &RING), Ok(()));
});
