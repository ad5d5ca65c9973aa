//! The wire, as stock agents and ztunnel rely on it, where the CA is not the plain one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ca_core::testing::{TestCa, now};
use ca_core::{
    BundleStore, CaRequest, Csr, IssuedChain, KeyCertBundle, KeyKind, LocalAuthority, PrivateKey,
    create_csr_pem,
};
use ca_proto::istio::v1::auth::IstioCertificateRequest;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::Code;

use crate::client::{Client, key_and_csr};
use crate::running::Running;

fn below(authority: &LocalAuthority, name: &str) -> (PrivateKey, IssuedChain) {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = Csr::from_pem(create_csr_pem(&key, &[]).unwrap().as_bytes()).unwrap();
    let request = CaRequest::new(csr, "cluster.local", name, Duration::from_secs(7200));
    (key, authority.issue_ca(&request, now()).unwrap())
}

/// A CA below a CA below `root`: its key, and both as they were issued.
fn two_below(root: &TestCa) -> (PrivateKey, IssuedChain, IssuedChain) {
    let (first_key, first) = below(&root.authority(), "first");
    let bundle = KeyCertBundle::new(
        Arc::new(first_key),
        first.chain().clone(),
        first.roots().clone(),
        now(),
    );
    let first_authority = LocalAuthority::new(BundleStore::new(bundle.unwrap()));
    let (key, second) = below(&first_authority, "second");
    (key, second, first)
}

/// Two intermediates with blank lines and comments between them, and two roots: one element for each certificate, and
/// one for all roots.
#[tokio::test]
async fn each_certificate_is_an_element_of_its_own_and_all_roots_are_the_last() {
    let (root, other) = (TestCa::new("cluster.local"), TestCa::new("cluster.local"));
    let (key, second, first) = two_below(&root);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let (low, high) = (
        second.chain().leaf().to_pem(),
        first.chain().leaf().to_pem(),
    );
    write("ca-key.pem", key.to_pkcs8_pem().as_str());
    write("ca-cert.pem", low);
    write("cert-chain.pem", &format!("{low}\n\n# above it\n{high}"));
    let roots = root.roots().merge(&other.roots());
    let (first_root, other_root) = (root.root_pem(), other.root_pem());
    // A root is sent once, however often it is there, and what people write between them is not.
    write(
        "root-cert.pem",
        &format!("# ours\n{first_root}\n# theirs\n{other_root}{first_root}"),
    );

    let ca = Running::start(&["--root-ca-dir", folder.path().to_str().unwrap()]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let answer = client.ask(&key_and_csr(&[]).1, 60).await.unwrap();
    let [leaf, between @ .., last] = &answer.elements[..] else {
        panic!("too short");
    };
    assert_eq!(between, [low, high]);
    assert_eq!(last, roots.to_pem());
    for single in answer.elements.iter().take(3) {
        assert_eq!(single.matches("-----BEGIN CERTIFICATE-----").count(), 1);
        assert!(single.ends_with("-----END CERTIFICATE-----\n"));
    }
    assert!(leaf.starts_with("-----BEGIN CERTIFICATE-----\n"));
    answer.chain.verify(&answer.roots, now()).unwrap();

    // Istio has another way to the same elements for whoever names a signer.
    let named = client.send(with_metadata("CertSigner", Kind::StringValue("one".into())));
    assert_eq!(named.await.unwrap().elements[1..], answer.elements[1..]);
}

/// The files of a `kubernetes.io/tls` secret: here too the root is in the last element alone, where Istio sends it twice.
#[tokio::test]
async fn the_layout_of_a_tls_secret_gives_leaf_intermediates_and_roots() {
    let root = TestCa::new("cluster.local");
    let (key, second, first) = two_below(&root);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let root = root.root_pem();
    write("tls.key", key.to_pkcs8_pem().as_str());
    write("tls.crt", &second.chain().to_pem());
    write("ca.crt", &root);

    let ca = Running::start(&["--root-ca-dir", folder.path().to_str().unwrap()]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let answer = client.ask(&key_and_csr(&[]).1, 60).await.unwrap();
    assert_eq!(
        answer.elements[1..],
        [
            second.chain().leaf().to_pem(),
            first.chain().leaf().to_pem(),
            root.as_str()
        ]
    );
    answer.chain.verify(&answer.roots, now()).unwrap();
}

/// Istio's agents always send the key, mostly with nothing in it; the built-in CA has one signer.
#[tokio::test]
async fn the_name_of_a_signer_changes_nothing_where_there_is_one() {
    let ca = Running::start(&[]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let text = |text: &str| Kind::StringValue(text.into());
    for (key, value) in [
        ("CertSigner", text("")),
        ("CertSigner", text("clusterissuers.example/one")),
        ("CertSigner", Kind::BoolValue(true)),
        ("WorkloadName", text("unknown keys are not read")),
    ] {
        let answer = client.send(with_metadata(key, value));
        assert_eq!(answer.await.unwrap().elements.len(), 2);
    }
}

fn with_metadata(key: &str, value: Kind) -> IstioCertificateRequest {
    let value = Value { kind: Some(value) };
    IstioCertificateRequest {
        csr: key_and_csr(&[]).1,
        validity_duration: 60,
        metadata: Some(Struct {
            fields: BTreeMap::from([(key.to_owned(), value)]),
        }),
    }
}

#[tokio::test]
async fn a_request_of_more_than_four_mebibytes_is_refused_and_the_next_one_served() {
    let ca = Running::start(&[]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let long = "x".repeat(4 * 1024 * 1024 + 1);
    let refused = client.ask(&long, 60).await.err().unwrap();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    client.ask(&key_and_csr(&[]).1, 60).await.unwrap();
}
