use std::time::Duration;

use super::*;
use crate::identity::SubjectName;
use crate::testing::{TestCa, now};
use crate::trust::TrustBundle;

mod pkits;

fn names() -> Vec<SubjectName> {
    [
        "spiffe://cluster.local/ns/shop/sa/cart",
        "cart.shop.svc",
        "10.0.0.7",
        "fe80::1",
    ]
    .map(|name| name.parse().unwrap())
    .into()
}

fn issued() -> (TestCa, CertificateChain) {
    let ca = TestCa::new("cluster.local");
    let chain = ca.identity(&names(), Duration::from_secs(3600), now()).1;
    (ca, chain)
}

#[test]
fn what_the_signer_says_of_a_certificate_is_what_reading_it_tells() {
    let (ca, chain) = issued();
    for written in [chain.leaf(), &ca.roots().certificates()[0]] {
        let read = Certificate::from_der(written.der().to_vec()).unwrap();
        assert_eq!(read.serial(), written.serial());
        assert_eq!(read.issuer_der(), written.issuer_der());
        assert_eq!(read.subject_der(), written.subject_der());
        assert_eq!(read.not_before(), written.not_before());
        assert_eq!(read.not_after(), written.not_after());
        assert_eq!(read.public_key(), written.public_key());
        assert_eq!(read.names(), written.names());
        assert_eq!(read.other_names(), 0);
        assert_eq!(read.key_identifier(), written.key_identifier());
        assert_eq!(read.is_ca(), written.is_ca());
    }
    assert_eq!(chain.leaf().names(), names());
    assert!(ca.roots().certificates()[0].is_self_issued());
    assert!(!chain.leaf().is_self_issued());
}

#[test]
fn pem_goes_out_and_comes_back_in_order() {
    let (ca, chain) = issued();
    let text = chain.to_pem() + ca.roots().to_pem();
    let all = Certificate::all_from_pem(text.as_bytes()).unwrap();
    assert_eq!(
        all,
        [chain.leaf().clone(), ca.roots().certificates()[0].clone()]
    );
    assert!(text.ends_with("-----END CERTIFICATE-----\n"));
}

#[test]
fn a_text_with_anything_but_certificates_is_refused_with_its_place() {
    let (_, chain) = issued();
    let good = chain.leaf().to_pem();
    let key = crate::PrivateKey::generate(crate::KeyKind::EcdsaP256).unwrap();
    let with_key = format!("{good}{}", key.to_pkcs8_pem().as_str());
    let error = Certificate::all_from_pem(with_key.as_bytes()).unwrap_err();
    assert_eq!(
        error,
        CertificateError::Label {
            label: "PRIVATE KEY".into()
        }
    );
    let junk = format!("{good}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let error = Certificate::all_from_pem(junk.as_bytes())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("certificate 2 of the PEM text: not a certificate"),
        "{error}"
    );
    assert!(matches!(
        Certificate::all_from_pem(b""),
        Err(CertificateError::Pem(_))
    ));
}

#[test]
fn a_cut_or_lengthened_certificate_is_refused() {
    let der = issued().1.leaf().der().to_vec();
    for end in 0..der.len() {
        assert!(
            Certificate::from_der(der[..end].to_vec()).is_err(),
            "{end} bytes were enough"
        );
    }
    let longer = [der, vec![0]].concat();
    assert!(Certificate::from_der(longer).is_err());
}

#[test]
fn a_chain_holds_only_for_its_own_root_and_only_in_its_time() {
    let (ca, chain) = issued();
    chain.verify(&ca.roots(), now()).unwrap();
    let other = TestCa::new("cluster.local").roots();
    assert!(matches!(
        chain.verify(&other, now()),
        Err(ChainError::Path(_))
    ));
    chain.verify(&other.merge(&ca.roots()), now()).unwrap();
    for outside in [
        chain.leaf().not_before() - Duration::from_secs(1),
        chain.leaf().not_after() + Duration::from_secs(1),
    ] {
        assert!(chain.verify(&ca.roots(), outside).is_err(), "{outside}");
    }
    let far = now() + Duration::from_secs(30 * 24 * 3600);
    assert_eq!(
        chain.verify(&ca.roots(), far),
        Err(ChainError::RootsExpired)
    );
}

#[test]
fn a_leaf_is_nobodys_authority() {
    let (ca, chain) = issued();
    // A workload that signs for another with its own key.
    let (key, middle) = ca.workload("shop", "cart");
    let fake = crate::template::IssuerTemplate::of(middle.leaf());
    let subject = crate::template::Subject {
        public_key: chain.leaf().public_key(),
        common_name: None,
        names: &names(),
    };
    let validity = crate::template::Validity {
        not_before: now(),
        not_after: now() + Duration::from_secs(60),
    };
    let leaf = fake.sign_leaf(&key, &subject, validity, &[7; 16]).unwrap();
    let chain = CertificateChain::new(leaf, [middle.leaf().clone()]);
    assert!(matches!(
        chain.verify(&ca.roots(), now()),
        Err(ChainError::Path(_))
    ));
    assert!(TrustBundle::new([middle.leaf().clone()]).is_err());
}

#[test]
fn the_fingerprint_is_the_sha_256_of_the_der_in_pairs() {
    let (_, chain) = issued();
    let shown = chain.leaf().fingerprint();
    assert_eq!(shown.len(), 32 * 3 - 1);
    let first = ring::digest::digest(&ring::digest::SHA256, chain.leaf().der()).as_ref()[0];
    assert!(shown.starts_with(&format!("{first:02X}:")));
}

#[test]
fn a_name_that_reads_only_in_part_is_no_name() {
    // The set inside the subject's first part becomes a sequence: readers that stop there would see an empty name.
    let der = issued().1.leaf().der().to_vec();
    let root = TestCa::new("cluster.local").roots().certificates()[0].clone();
    let subject = root.subject_der().to_vec();
    let at = root
        .der()
        .windows(subject.len())
        .rposition(|window| window == subject)
        .unwrap();
    for (offset, tag) in [(2, 0x30), (4, 0x34)] {
        let mut changed = root.der().to_vec();
        changed[at + offset] = tag;
        assert!(
            matches!(
                Certificate::from_der(changed),
                Err(CertificateError::Malformed(_))
            ),
            "{offset}"
        );
    }
    Certificate::from_der(der).unwrap();
}
