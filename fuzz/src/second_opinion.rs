//! What implementations that are not ours read in the same bytes.

use ca_core::{Certificate, Csr, SpiffeId, SubjectName};
use pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::prelude::FromDer as _;

/// Compares with webpki, which is what a TLS peer believes. Tells whether webpki can read it at all.
pub fn certificate(certificate: &Certificate) -> bool {
    let der = CertificateDer::from(certificate.der());
    let Ok(theirs) = EndEntityCert::try_from(&der) else {
        return false;
    };
    let spki = theirs.subject_public_key_info();
    assert_eq!(spki.as_ref(), certificate.public_key().spki_der());
    // Theirs are without the outermost header.
    assert!(certificate.subject_der().ends_with(theirs.subject()));
    assert!(certificate.issuer_der().ends_with(theirs.issuer()));

    let ours: Vec<&str> = certificate.spiffe_ids().map(SpiffeId::as_str).collect();
    let theirs_all: Vec<&str> = theirs.valid_uri_names().collect();
    let is_spiffe = |uri: &&str| uri.parse::<SpiffeId>().is_ok();
    let theirs_spiffe: Vec<&str> = theirs_all.into_iter().filter(is_spiffe).collect();
    assert_eq!(ours, theirs_spiffe);

    for name in theirs.valid_dns_names() {
        let known =
            |ours: &SubjectName| matches!(ours, SubjectName::Dns(ours) if ours.as_str() == name);
        assert!(
            certificate.names().iter().any(known) || certificate.other_names() > 0,
            "{name} was overlooked"
        );
    }
    true
}

/// Compares with x509-parser. Tells whether it can read it at all.
pub fn request(csr: &Csr) -> bool {
    let Ok((rest, theirs)) = X509CertificationRequest::from_der(csr.der()) else {
        return false;
    };
    assert!(rest.is_empty());
    let info = &theirs.certification_request_info;
    assert_eq!(info.subject_pki.raw, csr.public_key().spki_der());
    // Theirs ends in front of the first attribute that it cannot read.
    assert!(csr.subject_der().starts_with(info.subject.as_raw()));
    if let Ok(ours) = csr.requested() {
        let mut ours = ours
            .into_iter()
            .map(|e| (e.oid, e.critical, e.value.to_vec()));
        // Ours may be more: theirs reads one list of extensions for each attribute.
        for extension in requested(&theirs) {
            assert!(
                ours.any(|ours| ours == extension),
                "{extension:?} was overlooked"
            );
        }
    }
    true
}

/// Every extension that a request asks for, in every attribute, as x509-parser reads it.
pub fn requested(request: &X509CertificationRequest<'_>) -> Vec<(String, bool, Vec<u8>)> {
    let attributes = request.certification_request_info.iter_attributes();
    attributes
        .filter_map(|attribute| match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(request) => Some(&request.extensions),
            _ => None,
        })
        .flatten()
        .map(|e| (e.oid.to_id_string(), e.critical, e.value.to_vec()))
        .collect()
}
