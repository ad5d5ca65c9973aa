//! A registration authority below another CA of the same wire: two real servers.

use std::path::Path;
use std::time::Duration;

use ca_core::SubjectName;
use ca_core::testing::{TestCa, now};
use tonic::Code;
use tonic::transport::{Certificate as PemCertificate, ClientTlsConfig, Endpoint};

use crate::client::{self, Client};
use crate::running::{DEADLINE, Running};

const POLICY: &str = r#"
[[allow]]
name = "the registration authority asks for the shop"
callers = ["/ns/mesh/sa/registration"]
sources = ["token"]
identities = ["/ns/shop/**"]
"#;

#[tokio::test]
async fn its_callers_get_from_the_ca_above_what_that_lets_it_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let above = Running::start(&["--policy", &file("policy.toml", POLICY)]);
    let token = above.token_of("mesh", "registration", &[]);
    let listener = TestCa::new("listener");
    let serving = serving_files(&listener, folder.path());
    let root = file("above.pem", &above.root_pem());
    let flags = [
        "--external-ca=ISTIOD_RA_ISTIO_API",
        "--upstream-ca-addr",
        &above.serving,
        "--upstream-ca-root",
        &root,
        "--upstream-ca-token-file",
        &file("token", &token),
    ];
    let serving: Vec<_> = serving.iter().map(String::as_str).collect();
    let below = Running::start(&[&flags[..], &serving].concat());
    assert_eq!(below.root_pem(), above.root_pem());

    let connect = async |token: String| {
        let tls = ClientTlsConfig::new()
            .ca_certificate(PemCertificate::from_pem(listener.root_pem()))
            .domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{}", below.serving)).unwrap();
        let endpoint = endpoint.tls_config(tls).unwrap().timeout(DEADLINE);
        Client {
            channel: endpoint.connect().await.unwrap(),
            token: Some(token),
        }
    };
    let cart = "spiffe://cluster.local/ns/shop/sa/cart";
    let client = connect(below.token(&[])).await;
    let answer = client
        .ask(&client::key_and_csr(&[cart]).1, 600)
        .await
        .unwrap();
    assert_eq!(answer.chain.leaf().names(), [cart.parse().unwrap()]);
    assert_eq!(answer.elements.last().unwrap(), &above.root_pem());

    // Judged here, and not allowed above.
    let bank = "spiffe://cluster.local/ns/bank/sa/vault";
    let client = connect(below.token_of("bank", "vault", &[])).await;
    let refused = client.ask(&client::key_and_csr(&[bank]).1, 600).await;
    let status = refused.err().unwrap();
    // It may be over when somebody has changed that policy.
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let told = "CSR signing error (the signer is not available)";
    assert_eq!(status.message(), told);
}

/// Flags with files for the listener, which the CA above does not certify.
fn serving_files(ca: &TestCa, folder: &Path) -> [String; 6] {
    let names: [SubjectName; 1] = ["localhost".parse().unwrap()];
    let (key, chain) = ca.identity(&names, Duration::from_secs(3600), now());
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    [
        "--ca-cert-file".into(),
        file("ca.crt", &ca.root_pem()),
        "--tls-cert-file".into(),
        file("tls.crt", &chain.to_pem()),
        "--tls-key-file".into(),
        file("tls.key", &key.to_pkcs8_pem()),
    ]
}
