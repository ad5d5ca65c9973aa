use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::crypto::AWS_LC_RS;
use crate::identity::SubjectName;
use crate::key::{KeyKind, PrivateKey, SigningKey as _};

fn file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/csr")
        .join(name)
        .with_extension("pem");
    std::fs::read(path).unwrap()
}

fn read(name: &str) -> Csr {
    Csr::from_pem(&file(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn der(name: &str) -> Vec<u8> {
    pem::parse(file(name)).unwrap().into_contents()
}

#[test]
fn requests_of_openssl_are_read_by_both_backends_with_the_kind_of_their_key() {
    // Above all: the kind is that of the key, not of the hash it happened to sign with.
    for (name, kind) in [
        ("rsa2048", "RSA-2048"),
        ("rsa2048-sha512", "RSA-2048"),
        ("rsa2048-pss", "RSA-2048"),
        ("p256", "ECDSA P-256"),
        ("p256-sha384", "ECDSA P-256"),
        ("p384", "ECDSA P-384"),
        ("p384-sha384", "ECDSA P-384"),
        ("ed25519", "Ed25519"),
        ("ca-true", "ECDSA P-256"),
        ("repeated-names", "ECDSA P-256"),
        ("multi-valued", "ECDSA P-256"),
        ("unknown-extension", "ECDSA P-256"),
        ("subject-16k", "ECDSA P-256"),
        ("old-label", "ECDSA P-256"),
    ] {
        for backend in [&RING, &AWS_LC_RS] {
            let csr =
                Csr::from_pem_with(&file(name), backend).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(csr.public_key().kind().to_string(), kind, "{name}");
            let theirs = PublicKey::from_spki_der(x509_spki(csr.der())).unwrap();
            assert_eq!(
                *csr.public_key(),
                theirs,
                "{name}: the key bits pass through unchanged"
            );
        }
    }
}

/// Where another parser finds the public key.
fn x509_spki(der: &[u8]) -> &[u8] {
    use x509_parser::prelude::FromDer as _;
    let (_, csr) =
        x509_parser::certification_request::X509CertificationRequest::from_der(der).unwrap();
    csr.certification_request_info.subject_pki.raw
}

#[test]
fn weak_keys_weak_hashes_and_foreign_curves_are_refused() {
    for (name, message) in [
        ("rsa1024", "RSA key of 1024 bits (accepted: 2048 to 4096)"),
        (
            "rsa2048-exponent-3",
            "RSA key with an unusual exponent (accepted: odd, 65537 or more, at most 32 bits)",
        ),
        (
            "p521",
            "unsupported public key (accepted: RSA, ECDSA P-256 and P-384, Ed25519)",
        ),
        (
            "p224",
            "unsupported public key (accepted: RSA, ECDSA P-256 and P-384, Ed25519)",
        ),
        (
            "secp256k1",
            "unsupported public key (accepted: RSA, ECDSA P-256 and P-384, Ed25519)",
        ),
        (
            "ed448",
            "unsupported public key (accepted: RSA, ECDSA P-256 and P-384, Ed25519)",
        ),
        (
            "p256-sha1",
            "certificate signing request signature algorithm not accepted for an ECDSA P-256 key",
        ),
        (
            "rsa2048-sha1",
            "certificate signing request signature algorithm not accepted for an RSA-2048 key",
        ),
    ] {
        for backend in [&RING, &AWS_LC_RS] {
            let error = Csr::from_pem_with(&file(name), backend).unwrap_err();
            assert_eq!(error.to_string(), message, "{name}");
        }
    }
}

#[test]
fn a_signature_algorithm_of_another_kind_of_key_is_refused() {
    // The P-256 request, relabelled as signed with RSA and as signed with Ed25519.
    let original = der("p256");
    let outer = read_signed(&original).unwrap();
    for algorithm in [
        pki_types::alg_id::RSA_PKCS1_SHA256,
        pki_types::alg_id::ED25519,
    ] {
        let relabelled = crate::asn1::wrap(
            crate::asn1::SEQUENCE,
            &[
                outer.message,
                &crate::asn1::wrap(crate::asn1::SEQUENCE, &[algorithm.as_ref()]),
                &crate::asn1::bit_string(outer.signature),
            ],
        );
        let error = Csr::from_der(&relabelled).unwrap_err();
        assert!(
            matches!(error, CsrError::Signature(VerifyError::Algorithm { .. })),
            "{error:?}"
        );
    }
}

#[test]
fn what_it_asks_for_is_told_in_order() {
    let csr = read("ca-true");
    let requested = csr.requested().unwrap();
    let shown: Vec<_> = requested
        .iter()
        .map(|e| (e.oid.as_str(), e.critical))
        .collect();
    assert_eq!(shown, [("2.5.29.19", true), ("2.5.29.15", true)]);
    assert_eq!(requested[0].value, [0x30, 3, 1, 1, 0xff]);

    let csr = read("unknown-extension");
    let shown: Vec<_> = csr
        .requested()
        .unwrap()
        .iter()
        .map(|e| e.oid.clone())
        .collect();
    assert_eq!(shown, ["1.3.6.1.4.1.99999.1", "2.5.29.17"]);
    assert_eq!(read("p384-sha384").requested().unwrap(), []);
}

#[test]
fn subjects_are_told_with_repeated_and_multi_valued_parts() {
    let shown = |name: &str| -> Vec<(String, String)> {
        let subject = read(name).subject().unwrap();
        subject
            .into_iter()
            .map(|a| (a.oid, a.value.unwrap()))
            .collect()
    };
    let pair = |oid: &str, value: &str| (oid.to_owned(), value.to_owned());
    assert_eq!(
        shown("repeated-names"),
        [
            pair("0.9.2342.19200300.100.1.25", "com"),
            pair("0.9.2342.19200300.100.1.25", "example"),
            pair("2.5.4.10", "a"),
            pair("2.5.4.10", "b"),
            pair("2.5.4.3", "one"),
            pair("2.5.4.3", "two"),
        ]
    );
    assert_eq!(shown("multi-valued").len(), 4);
    assert_eq!(shown("p256"), []);
    assert_eq!(shown("subject-16k").len(), 192);
}

#[test]
fn only_a_common_name_that_is_there_is_a_wish_for_one() {
    for (name, wish) in [
        ("common-name", true),
        ("repeated-names", true),
        ("p256", false),
        ("empty-organization", false),
    ] {
        assert_eq!(read(name).wants_common_name(), wish, "{name}");
    }
}

#[test]
fn our_own_requests_name_what_they_were_made_for() {
    let names: Vec<SubjectName> = ["spiffe://td/ns/a/sa/b", "a.example", "10.0.0.1", "::1"]
        .map(|n| n.parse().unwrap())
        .into();
    for kind in [
        KeyKind::EcdsaP256,
        KeyKind::EcdsaP384,
        KeyKind::Ed25519,
        KeyKind::Rsa2048,
    ] {
        let key = PrivateKey::generate_with(kind, &AWS_LC_RS).unwrap();
        let csr = Csr::from_pem(create_csr_pem(&key, &names).unwrap().as_bytes()).unwrap();
        assert_eq!(csr.public_key(), key.public_key());
        assert_eq!(csr.subject_der(), [0x30, 0]);
        let requested = csr.requested().unwrap();
        assert_eq!(requested.len(), 1);
        assert!(requested[0].critical && requested[0].oid == "2.5.29.17");
        assert_eq!(
            Csr::from_pem(csr.to_pem().as_bytes()).unwrap().der(),
            csr.der()
        );
    }
}

#[test]
fn no_change_of_a_single_byte_yields_another_key() {
    for name in ["p256", "ed25519", "ca-true"] {
        let original = der(name);
        let key = read(name).public_key().clone();
        for at in 0..original.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = original.clone();
                changed[at] ^= change;
                if let Ok(csr) = Csr::from_der(&changed) {
                    assert_eq!(*csr.public_key(), key, "{name}: byte {at} ^ {change:#x}");
                }
            }
        }
    }
}

#[test]
fn nothing_may_be_missing_and_nothing_may_follow() {
    let good = der("p256");
    for end in 0..good.len() {
        assert!(
            Csr::from_der(&good[..end]).is_err(),
            "{end} bytes were enough"
        );
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(
        Csr::from_der(&longer),
        Err(CsrError::Malformed(_))
    ));
    let large = vec![0x30; MAX_BYTES + 1];
    assert_eq!(
        Csr::from_der(&large).unwrap_err(),
        CsrError::TooLarge { limit: MAX_BYTES }
    );
}

#[test]
fn pem_may_have_text_around_it_but_must_be_a_request() {
    let block = String::from_utf8(file("p256")).unwrap();
    for good in [
        format!("Request:\n{block}\nmore"),
        block.replace('\n', "\r\n"),
        format!("{block}{block}"),
    ] {
        assert_eq!(Csr::from_pem(good.as_bytes()).unwrap().der(), der("p256"));
    }
    let certificate = block.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    let broken = block.replace('M', "*");
    for bad in ["", "junk", &block[..block.len() / 2], &certificate, &broken] {
        assert_eq!(
            Csr::from_pem(bad.as_bytes()).unwrap_err(),
            CsrError::NotPem,
            "{bad}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Csr::from_der(&bytes).is_err());
        prop_assert!(Csr::from_pem(&bytes).is_err());
        let _ = read_attributes(&bytes);
        let _ = read_name(&bytes, |_, _| {});
    }
}

#[test]
fn the_request_of_a_ca_has_its_name_as_subject_and_asks_for_nothing_else() {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let pem = create_ca_csr_pem(&key, "cluster.local", "edge 01ab").unwrap();
    let csr = Csr::from_pem(pem.as_bytes()).unwrap();
    let subject: Vec<_> = csr.subject().unwrap().into_iter().map(|a| a.oid).collect();
    assert_eq!(subject, ["2.5.4.10", "2.5.4.3"]);
    assert_eq!(csr.requested().unwrap().len(), 0);
    assert_eq!(csr.public_key(), key.public_key());
}
