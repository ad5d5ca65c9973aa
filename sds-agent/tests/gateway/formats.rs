//! Every way to lay a Secret out, and every way to name one.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use ca_core::{KeyKind, PrivateKey, crypto::AWS_LC_RS, testing::TestCa};
use ca_proto::envoy::extensions::transport_sockets::tls::v3::{Secret as Served, secret::Type};

use crate::stage::{Pair, Stage, assert_pair, bytes};

#[tokio::test]
#[ignore = "needs an API server: cargo xtask interop kubernetes"]
async fn every_layout_of_a_secret_is_served_under_every_name() {
    let stage = Stage::new().await;
    let agent = stage.agent(&[]);
    let (pair, root) = (stage.pair(), stage.ca.root_pem());
    let list = stage.revocation_list();
    let tls = [
        ("tls.crt", &*pair.chain),
        ("tls.key", &*pair.key),
        ("tls.ocsp-staple", "staple"),
        ("ca.crt", &*root),
        ("ca.crl", &*list),
    ];
    stage.write("tls", "kubernetes.io/tls", &tls).await;
    let generic = [
        ("cert", &*pair.chain),
        ("key", &*pair.key),
        ("cacert", &*root),
        ("crl", &*list),
    ];
    stage.write("generic", "Opaque", &generic).await;
    // Somebody else's pair, with the CA of its clients in a Secret of its own.
    stage.write_tls("split", &pair).await;
    let other = TestCa::new("other");
    let ca = [("ca.crt", &*other.root_pem())];
    stage.write("split-cacert", "Opaque", &ca).await;

    let namespace = &stage.namespace;
    for secret in ["tls", "generic", "split"] {
        for name in [
            secret.to_owned(),
            format!("kubernetes://{secret}"),
            format!("kubernetes://{namespace}/{secret}"),
            format!("kubernetes-gateway://{namespace}/{secret}"),
        ] {
            let ca_name = format!("{name}-cacert");
            let served = agent.subscribe(&[&name]).await.accept().await;
            assert_pair(&served[0], &name, &pair);
            assert_eq!(staple(&served[0]) == b"staple", secret == "tls", "{name}");
            let served = agent.subscribe(&[&ca_name]).await.accept().await;
            let (roots, revocation) = roots(&served[0]);
            let separate = secret == "split";
            let wanted = if separate {
                other.root_pem()
            } else {
                root.clone()
            };
            assert_eq!(roots, wanted.as_bytes(), "{ca_name}");
            assert_eq!(revocation.is_empty(), separate, "{ca_name}");
        }
    }
    agent.stop().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask interop kubernetes"]
async fn keys_of_every_kind_and_form_are_served() {
    let stage = Stage::new().await;
    let agent = stage.agent(&[]);
    for (name, kind) in [("rsa", KeyKind::Rsa2048), ("p384", KeyKind::EcdsaP384)] {
        let key = PrivateKey::generate_with(kind, &AWS_LC_RS).unwrap();
        let issued = stage.certify(&key);
        // As OpenSSL writes it, and older tools.
        for (form, text) in [
            ("pkcs8", key.to_pkcs8_pem().to_string()),
            ("traditional", traditional(&key.to_pkcs8_pem())),
        ] {
            let name = format!("{name}-{form}");
            let pair = Pair {
                chain: issued.clone(),
                key: text,
            };
            stage.write_tls(&name, &pair).await;
            let served = agent.subscribe(&[&name]).await.accept().await;
            assert_pair(&served[0], &name, &pair);
        }
    }
    agent.stop().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask interop kubernetes"]
async fn more_secrets_than_fit_into_one_page_are_listed_and_others_left_out() {
    let stage = Stage::new().await;
    let pair = stage.pair();
    for number in 0..120 {
        stage.write_tls(&format!("shop-{number}"), &pair).await;
    }
    // Types that a gateway never shows: the API server does not even send them.
    let releases = [("release", "x")];
    stage
        .write("release", "helm.sh/release.v1", &releases)
        .await;
    let agent = stage.agent(&[]);
    let line = format!("namespace {}  120 secrets\n", stage.namespace);
    let listed = |_, page: &str| page.contains(&line);
    agent.becomes("/debug/sds", listed).await;
    let served = agent.subscribe(&["shop-119"]).await.accept().await;
    assert_pair(&served[0], "shop-119", &pair);
    agent.stop().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask interop kubernetes"]
async fn only_secrets_with_the_wanted_labels_count() {
    let stage = Stage::new().await;
    let agent = stage.agent(&["--gateway-selector", "mesh in (edge),!private"]);
    let pair = stage.pair();
    let data = [("tls.crt", &*pair.chain), ("tls.key", &*pair.key)];
    let mut stream = agent.subscribe(&["shop"]).await;
    stage.write_tls("shop", &pair).await;
    stage.write_tls("other", &pair).await;
    assert!(stream.is_silent().await);
    let labels = serde_json::json!({ "mesh": "edge" });
    stage
        .write_labelled("shop", "kubernetes.io/tls", &data, labels)
        .await;
    assert_pair(&stream.accept().await[0], "shop", &pair);
    // Whose label is taken away, that one is gone.
    stage.write_tls("shop", &pair).await;
    let gone = |_, page: &str| page.contains("shop not found");
    agent.becomes("/debug/sds", gone).await;
    agent.stop().await;
}

fn staple(served: &Served) -> &[u8] {
    let Some(Type::TlsCertificate(pair)) = &served.r#type else {
        panic!("no key pair");
    };
    bytes(pair.ocsp_staple.as_ref())
}

fn roots(served: &Served) -> (&[u8], &[u8]) {
    let Some(Type::ValidationContext(context)) = &served.r#type else {
        panic!("no roots");
    };
    (
        bytes(context.trusted_ca.as_ref()),
        bytes(context.crl.as_ref()),
    )
}

/// PKCS#1 or SEC1, by OpenSSL.
fn traditional(pkcs8: &str) -> String {
    let mut openssl = Command::new("openssl")
        .args(["pkey", "-traditional"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = openssl.stdin.take().unwrap();
    input.write_all(pkcs8.as_bytes()).unwrap();
    drop(input);
    let text = openssl.wait_with_output().unwrap();
    assert!(text.status.success());
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        !text.starts_with("-----BEGIN PRIVATE KEY"),
        "not traditional"
    );
    text
}
