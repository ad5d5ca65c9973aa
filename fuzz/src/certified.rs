//! Signing what a target has accepted, and looking at the result from all sides.

use ca_core::crypto::AWS_LC_RS;
use ca_core::{Certificate, Csr, SigningRequest, SubjectAttribute, SubjectName};

use crate::fixed::{AUTHORITY, HOUR, NOW};
use crate::second_opinion;

/// Has the fixed CA certify the key of `csr` for `name`: the certificate must have that key and that name, and
/// nothing else that the request wished for.
pub fn certify(csr: &Csr, name: &SubjectName) -> Certificate {
    let request = SigningRequest::new(csr.clone(), vec![name.clone()], HOUR);
    let issued = AUTHORITY
        .issue(&request, NOW)
        .expect("an accepted request can be signed");
    let leaf = issued.chain().leaf();
    issued
        .chain()
        .verify(issued.roots(), NOW)
        .expect("what we sign verifies");

    // The signer knows what it has written without reading it: a reader must find the same.
    let read = Certificate::from_der(leaf.der().to_vec()).expect("what we sign reads");
    assert_eq!(read.public_key(), csr.public_key());
    assert_eq!(read.names(), std::slice::from_ref(name));
    assert_eq!(read.names(), leaf.names());
    assert_eq!(read.other_names(), 0);
    assert!(!read.is_ca());
    assert_eq!(read.serial(), leaf.serial());
    assert_eq!(read.subject_der(), leaf.subject_der());
    assert_eq!(read.issuer_der(), leaf.issuer_der());
    assert_eq!(read.not_before(), leaf.not_before());
    assert_eq!(read.not_after(), leaf.not_after());
    assert!(second_opinion::certificate(&read), "webpki cannot read it");
    read
}

/// What holds for every request that was accepted.
pub fn check_request(csr: &Csr, name: &SubjectName) {
    let again = Csr::from_pem_with(csr.to_pem().as_bytes(), &AWS_LC_RS);
    let again = again.expect("what we write reads");
    assert_eq!(again.der(), csr.der());
    second_opinion::request(csr);
    // None of these may panic, whatever the request holds.
    let (subject, requested) = (csr.subject(), csr.requested());
    let names = |a: &SubjectAttribute| a.oid == "2.5.4.3" && a.value.as_deref() != Some("");
    let has_common_name = subject.is_ok_and(|subject| subject.iter().any(names));
    assert_eq!(csr.wants_common_name(), has_common_name);
    if let Ok(requested) = requested {
        let mut types: Vec<_> = requested.iter().map(|extension| &extension.oid).collect();
        types.sort();
        types.dedup();
        assert_eq!(types.len(), requested.len(), "an extension twice");
    }
    certify(csr, name);
}
