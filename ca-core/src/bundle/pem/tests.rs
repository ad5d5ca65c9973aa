use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::crypto::RING;
use crate::csr::{Csr, create_csr_pem};
use crate::key::KeyKind;
use crate::local::CaRequest;
use crate::testing::{TestCa, now};

/// root → a → b, and the key of b.
fn three_levels() -> (TestCa, Certificate, Certificate, PrivateKey) {
    let root = TestCa::new("td");
    let below = |issuer: &crate::LocalAuthority, name: &str| {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let csr = Csr::from_pem(create_csr_pem(&key, &[]).unwrap().as_bytes()).unwrap();
        let request = CaRequest::new(csr, "td", name, Duration::from_secs(3600));
        (key, issuer.issue_ca(&request, now()).unwrap())
    };
    let (key_a, a) = below(&root.authority(), "a");
    let bundle = KeyCertBundle::new(Arc::new(key_a), a.chain().clone(), a.roots().clone(), now());
    let under_a = crate::LocalAuthority::new(crate::BundleStore::new(bundle.unwrap()));
    let (key_b, b) = below(&under_a, "b");
    (
        root,
        a.chain().leaf().clone(),
        b.chain().leaf().clone(),
        key_b,
    )
}

fn parts(certificate: &str, key: &PrivateKey, chain: &str, roots: &str) -> BundlePem {
    BundlePem {
        certificate: certificate.into(),
        key: Zeroizing::new(key.to_pkcs8_pem().as_bytes().to_vec()),
        chain: chain.into(),
        roots: roots.into(),
        revocation: None,
    }
}

fn load(parts: &BundlePem) -> Result<KeyCertBundle, BundlePemError> {
    KeyCertBundle::from_pem(parts, &RING, now())
}

#[test]
fn intermediates_are_ordered_and_each_is_there_once_however_they_come() {
    let (root, a, b, key) = three_levels();
    let stranger = TestCa::new("other").roots();
    let (pem_a, pem_b, pem_root) = (a.to_pem(), b.to_pem(), root.roots().to_pem().to_owned());
    for chain in [
        // Istio's documentation puts the signing certificate in front and the root at the end.
        format!("{pem_b}{pem_a}{pem_root}"),
        format!("{pem_a}{pem_b}"),
        format!("{pem_root}{pem_a}{pem_a}{pem_b}"),
        format!("{}{pem_a}", stranger.to_pem()),
        pem_a.to_owned(),
    ] {
        let bundle = load(&parts(pem_b, &key, &chain, &pem_root)).unwrap();
        assert_eq!(bundle.chain().leaf(), &b);
        assert_eq!(bundle.chain().intermediates(), std::slice::from_ref(&a));
        let authority = crate::LocalAuthority::new(crate::BundleStore::new(bundle));
        let (_, issued) = authority
            .issue_with_new_key(
                vec!["a.example".parse().unwrap()],
                Duration::from_secs(60),
                now(),
            )
            .unwrap();
        assert_eq!(issued.chain().intermediates(), [b.clone(), a.clone()]);
        issued.chain().verify(&root.roots(), now()).unwrap();
    }
    // All in one file, as in a TLS secret.
    let bundle = load(&parts(&format!("{pem_b}{pem_a}"), &key, "\n", &pem_root)).unwrap();
    assert_eq!(bundle.chain().intermediates(), [a]);
}

#[test]
fn a_missing_intermediate_a_foreign_root_and_a_foreign_key_are_told() {
    let (root, a, b, key) = three_levels();
    let roots = root.roots().to_pem().to_owned();
    let told = |parts: BundlePem| load(&parts).unwrap_err().to_string();
    let text = told(parts(b.to_pem(), &key, "", &roots));
    assert!(
        text.starts_with("certificate chain does not verify: UnknownIssuer"),
        "{text}"
    );
    let text = told(parts(
        b.to_pem(),
        &key,
        a.to_pem(),
        TestCa::new("td").roots().to_pem(),
    ));
    assert!(
        text.starts_with("certificate chain does not verify"),
        "{text}"
    );
    let other = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let text = told(parts(b.to_pem(), &other, a.to_pem(), &roots));
    assert_eq!(
        text,
        "the private key does not match the signing certificate"
    );
}

#[test]
fn the_part_that_does_not_read_is_named() {
    let (root, a, b, key) = three_levels();
    let good = || parts(b.to_pem(), &key, a.to_pem(), root.roots().to_pem());
    let told = |change: &dyn Fn(&mut BundlePem)| {
        let mut parts = good();
        change(&mut parts);
        load(&parts).unwrap_err().to_string()
    };
    assert!(told(&|p| p.certificate = b"x".to_vec()).starts_with("signing certificate: not PEM"));
    assert!(told(&|p| p.chain = b"x".to_vec()).starts_with("chain: not PEM"));
    assert!(told(&|p| p.roots = b"x".to_vec()).starts_with("roots: not PEM"));
    assert!(
        told(&|p| p.key = Zeroizing::new(b"x".to_vec()))
            .starts_with("private key: not a private key")
    );
    load(&good()).unwrap();
    assert_eq!(format!("{:?}", good()), "BundlePem(redacted)");
}

type Files = HashMap<&'static str, Zeroizing<Vec<u8>>>;

fn collect(files: &Files) -> Result<Option<CaLayout>, IncompleteCa> {
    Ok(CaLayout::collect(|name| files.get(name).cloned())?.map(|(layout, _)| layout))
}

#[test]
fn a_set_of_files_is_complete_absent_or_refused_with_what_is_missing() {
    let files = |names: &[&'static str]| -> Files {
        names
            .iter()
            .map(|name| (*name, Zeroizing::new(b"x".to_vec())))
            .collect()
    };
    let istio = [
        "ca-cert.pem",
        "ca-key.pem",
        "cert-chain.pem",
        "root-cert.pem",
    ];
    assert_eq!(collect(&files(&[])), Ok(None));
    assert_eq!(collect(&files(&["unrelated.pem", "ca-crl.pem"])), Ok(None));
    assert_eq!(collect(&files(&istio)), Ok(Some(CaLayout::Istio)));
    assert_eq!(
        collect(&files(&["tls.crt", "tls.key", "ca.crt"])),
        Ok(Some(CaLayout::TlsSecret))
    );
    // As with Istio, tls.crt decides.
    let both = [&istio[..], &["tls.crt"]].concat();
    assert_eq!(
        collect(&files(&both)),
        Err(IncompleteCa {
            missing: vec!["tls.key", "ca.crt"]
        })
    );
    for absent in istio {
        let names: Vec<_> = istio.into_iter().filter(|name| *name != absent).collect();
        assert_eq!(
            collect(&files(&names)),
            Err(IncompleteCa {
                missing: vec![absent]
            })
        );
    }
    let lone_root = collect(&files(&["root-cert.pem"])).unwrap_err().to_string();
    assert_eq!(
        lone_root,
        "incomplete signing CA bundle detected: missing ca-cert.pem, ca-key.pem, cert-chain.pem"
    );
}

#[test]
fn revocation_lists_are_optional_judged_apart_and_can_be_cleared() {
    let (root, a, b, key) = three_levels();
    let mut parts = parts(b.to_pem(), &key, a.to_pem(), root.roots().to_pem());
    let bundle = load(&parts).unwrap();
    assert_eq!(parts.revocation_lists(&bundle, &RING), Ok(None));
    parts.revocation = Some(b"  \n".to_vec());
    assert_eq!(parts.revocation_lists(&bundle, &RING), Ok(None));
    // A bad list is told, and the key can be used all the same.
    parts.revocation = Some(b"junk".to_vec());
    assert!(matches!(
        parts.revocation_lists(&bundle, &RING),
        Err(RevocationError::Pem(_))
    ));
    let bundle = load(&parts).unwrap().with_revocation_lists(None);
    assert!(bundle.revocation_lists().is_none());
}

#[test]
fn a_cross_signed_copy_in_front_does_not_hide_the_way_to_the_root() {
    // One intermediate, certified by the root that is going and by the one that is coming.
    let (old, new) = (TestCa::new("td"), TestCa::new("td"));
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = Csr::from_pem(create_csr_pem(&key, &[]).unwrap().as_bytes()).unwrap();
    let request = CaRequest::new(csr, "td", "middle", Duration::from_secs(3600));
    let by = |root: &TestCa| {
        root.authority()
            .issue_ca(&request, now())
            .unwrap()
            .chain()
            .leaf()
            .clone()
    };
    let (by_old, by_new) = (by(&old), by(&new));
    let authority = {
        let chain = CertificateChain::new(by_new.clone(), []);
        let bundle = KeyCertBundle::new(Arc::new(key), chain, new.roots(), now()).unwrap();
        crate::LocalAuthority::new(crate::BundleStore::new(bundle))
    };
    let (_, issued) = authority
        .issue_with_new_key(
            vec!["a.example".parse().unwrap()],
            Duration::from_secs(60),
            now(),
        )
        .unwrap();
    let leaf = issued.chain().leaf().clone();
    for pool in [
        [by_old.clone(), by_new.clone()],
        [by_new.clone(), by_old.clone()],
    ] {
        for (roots, expected) in [(new.roots(), &by_new), (old.roots(), &by_old)] {
            let chain = CertificateChain::ordered(leaf.clone(), &pool, &roots, &RING);
            assert_eq!(chain.intermediates(), std::slice::from_ref(expected));
            chain.verify(&roots, now()).unwrap();
        }
    }
}

#[test]
fn an_intermediate_of_before_does_not_hide_that_of_now() {
    let root = TestCa::new("td");
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let certificate = |lifetime, at| {
        let csr = Csr::from_pem(create_csr_pem(&key, &[]).unwrap().as_bytes()).unwrap();
        let request = CaRequest::new(csr, "td", "middle", Duration::from_secs(lifetime));
        root.authority()
            .issue_ca(&request, at)
            .unwrap()
            .chain()
            .leaf()
            .clone()
    };
    let (before, renewed) = (certificate(60, now()), certificate(3600, now()));
    let bundle = KeyCertBundle::new(
        Arc::new(key.clone()),
        CertificateChain::new(renewed.clone(), []),
        root.roots(),
        now(),
    );
    let below_key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = Csr::from_pem(create_csr_pem(&below_key, &[]).unwrap().as_bytes()).unwrap();
    let below = crate::LocalAuthority::new(crate::BundleStore::new(bundle.unwrap()))
        .issue_ca(
            &CaRequest::new(csr, "td", "below", Duration::from_secs(1800)),
            now(),
        )
        .unwrap();
    let chain = format!("{}{}", before.to_pem(), renewed.to_pem());
    let parts = parts(
        below.chain().leaf().to_pem(),
        &below_key,
        &chain,
        root.roots().to_pem(),
    );
    let later = now() + Duration::from_secs(120);
    let bundle = KeyCertBundle::from_pem(&parts, &RING, later).unwrap();
    assert_eq!(
        bundle.chain().intermediates(),
        std::slice::from_ref(&renewed)
    );
}
