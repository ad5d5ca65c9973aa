//! Requests over the wire, good and bad.

use std::time::Duration;

use ca_core::testing::now;
use ca_core::{Certificate, PrivateKey};
use ca_proto::istio::v1::auth::IstioCertificateRequest;
use tonic::Code;
use tonic::transport::{Certificate as PemCertificate, ClientTlsConfig, Endpoint, Identity};

use crate::client::{Client, key_and_csr};
use crate::running::{self, Running};

fn names(certificate: &Certificate) -> Vec<String> {
    certificate
        .names()
        .iter()
        .map(ToString::to_string)
        .collect()
}

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

#[tokio::test]
async fn the_identity_is_the_tokens_whatever_the_csr_asks_for() {
    let ca = Running::start(&[]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    for wished in [
        &[CART][..],
        &[
            "spiffe://cluster.local/ns/kube-system/sa/admin",
            "evil.example",
        ],
        &[],
    ] {
        let (_, csr) = key_and_csr(wished);
        let answer = client.ask(&csr, 3600).await.unwrap();
        assert_eq!(names(answer.chain.leaf()), [CART]);
        assert_eq!(answer.elements.len(), 2, "leaf and roots");
        assert!(
            answer
                .elements
                .iter()
                .all(|e| e.starts_with("-----BEGIN CERT") && e.ends_with("-----\n"))
        );
        assert_eq!(answer.roots.to_pem(), ca.root_pem());
        answer.chain.verify(&answer.roots, now()).unwrap();
        let left = answer.chain.leaf().not_after() - now();
        assert!((3595.0..=3600.0).contains(&left.as_seconds_f64()), "{left}");
    }
    assert!(
        ca.get("/metrics")
            .1
            .contains("\ncitadel_server_success_cert_issuance_count 3\n")
    );
}

#[tokio::test]
async fn lifetimes_follow_the_policy() {
    let ca = Running::start(&[
        "--default-workload-cert-ttl",
        "2h",
        "--max-workload-cert-ttl",
        "3h",
    ]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let (_, csr) = key_and_csr(&[]);
    for (asked, hours) in [(0, 2), (-5, 2), (3 * 3600, 3)] {
        let left = client
            .ask(&csr, asked)
            .await
            .unwrap()
            .chain
            .leaf()
            .not_after()
            - now();
        assert_eq!((left.as_seconds_f64() / 3600.0).round(), f64::from(hours));
    }
    for too_long in [3 * 3600 + 1, i64::MAX] {
        let status = client.ask(&csr, too_long).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status
                .message()
                .starts_with("CSR signing error (requested TTL "),
            "{}",
            status.message()
        );
        assert!(
            status
                .message()
                .ends_with(" is greater than the max allowed TTL 3h0m0s)")
        );
    }
    // A certificate of seconds starts a quarter of its life early, so that it is not due when it arrives.
    let leaf = client.ask(&csr, 4).await.unwrap();
    let life = leaf.chain.leaf().not_after() - leaf.chain.leaf().not_before();
    assert_eq!(life.whole_seconds(), 5);
}

#[tokio::test]
async fn who_proves_nothing_gets_one_sentence() {
    let ca = Running::start(&["--trust-domain", "td"]);
    let other = Running::start(&[]);
    let (_, csr) = key_and_csr(&[]);
    let expired = {
        let token = ca.token(&["--ttl", "1s"]);
        let client = Client::connect(&ca, None, Some(token.clone())).await;
        // Asked again until it is over: the server is the judge of that.
        let end = std::time::Instant::now() + running::DEADLINE;
        while client.ask(&csr, 60).await.is_ok() {
            assert!(std::time::Instant::now() < end, "the token never ends");
        }
        token
    };
    for token in [
        None,
        Some(String::new()),
        Some("garbage".to_owned()),
        Some(other.token(&[])),
        Some(ca.token(&["--audience", "somebody-else"])),
        Some(expired),
    ] {
        let client = Client::connect(&ca, None, token.clone()).await;
        let status = client.ask(&csr, 60).await.err().unwrap();
        assert_eq!(status.code(), Code::Unauthenticated, "{token:?}");
        assert_eq!(status.message(), "request authenticate failure");
    }
    let count = "citadel_server_authentication_failure_count ";
    let metrics = ca.get("/metrics").1;
    let line = metrics
        .lines()
        .find(|line| line.starts_with(count))
        .unwrap();
    assert!(line[count.len()..].parse::<u32>().unwrap() >= 6);
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong_with_them() {
    let ca = Running::start(&[]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let (_, good) = key_and_csr(&[CART]);
    let block = |der: &[u8]| pem(der);
    let der = ca_core::Csr::from_pem(good.as_bytes())
        .unwrap()
        .der()
        .to_vec();
    let mut unsigned = der.clone();
    *unsigned.last_mut().unwrap() ^= 1;
    let mut longer = der.clone();
    longer.push(0);
    for (csr, message) in [
        (
            String::new(),
            "certificate signing request is not properly encoded",
        ),
        (
            "garbage".into(),
            "certificate signing request is not properly encoded",
        ),
        (
            block(b"\x30\x03\x02\x01"),
            "failed to parse X.509 certificate signing request",
        ),
        (
            block(&longer),
            "failed to parse X.509 certificate signing request",
        ),
        (
            block(&unsigned),
            "certificate signing request signature does not verify",
        ),
    ] {
        let status = client.ask(&csr, 60).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{message}");
        assert_eq!(status.message(), format!("CSR signing error ({message})"));
    }
    assert!(
        ca.get("/metrics")
            .1
            .contains("\ncitadel_server_csr_sign_err_count{error=\"CSR_ERROR\"} 5\n")
    );
    client.ask(&good, 60).await.unwrap();
}

#[tokio::test]
async fn a_certificate_renews_its_own_names_and_no_others() {
    let ca = Running::start(&[]);
    let (key, csr) = key_and_csr(&[]);
    let first = Client::connect(&ca, None, Some(ca.token(&[])))
        .await
        .ask(&csr, 3600)
        .await
        .unwrap();
    let identity = Identity::from_pem(first.chain.to_pem(), key.to_pkcs8_pem().as_str());
    let client = Client::connect(&ca, Some(identity), None).await;

    let (_, csr) = key_and_csr(&["spiffe://cluster.local/ns/shop/sa/other"]);
    let renewed = client.ask(&csr, 3600).await.unwrap();
    assert_eq!(names(renewed.chain.leaf()), [CART]);

    assert_eq!(
        names(
            client
                .send(impersonate(&csr, CART))
                .await
                .unwrap()
                .chain
                .leaf()
        ),
        [CART]
    );
    let status = client
        .send(impersonate(&csr, "spiffe://cluster.local/ns/shop/sa/other"))
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(
        status.message(),
        "request impersonation authentication failure"
    );
}

#[tokio::test]
async fn a_certificate_of_another_mesh_does_not_even_connect() {
    let (ca, other) = (Running::start(&[]), Running::start(&[]));
    let (key, csr) = key_and_csr(&[]);
    let foreign = Client::connect(&other, None, Some(other.token(&[])))
        .await
        .ask(&csr, 60)
        .await
        .unwrap();
    let identity = Identity::from_pem(foreign.chain.to_pem(), key.to_pkcs8_pem().as_str());
    let tls = ClientTlsConfig::new()
        .ca_certificate(PemCertificate::from_pem(ca.root_pem()))
        .domain_name("localhost")
        .identity(identity);
    let endpoint = Endpoint::from_shared(format!("https://{}", ca.serving)).unwrap();
    let endpoint = endpoint
        .tls_config(tls)
        .unwrap()
        .timeout(Duration::from_secs(5));
    // TLS 1.3 lets the client believe in the connection until it uses it.
    if let Ok(channel) = endpoint.connect().await {
        let client = Client {
            channel,
            token: Some(ca.token(&[])),
        };
        assert!(client.ask(&csr, 60).await.is_err());
    }
    let metrics = ca.get("/metrics").1;
    let failures =
        "mesh_ca_tls_handshake_failures{listener=\"grpc\",reason=\"client_certificate\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(failures));
    assert!(count.is_some_and(|count| count != "0"), "{metrics}");
}

#[tokio::test]
async fn a_silent_client_holds_up_nobody() {
    let ca = Running::start(&[]);
    let _silent: Vec<_> = (0..50)
        .map(|_| std::net::TcpStream::connect(&ca.serving).unwrap())
        .collect();
    let (_, csr) = key_and_csr(&[]);
    Client::connect(&ca, None, Some(ca.token(&[])))
        .await
        .ask(&csr, 60)
        .await
        .unwrap();
}

#[tokio::test]
async fn tokens_of_a_configured_issuer_are_accepted_and_local_ones_are_not() {
    let issuer = ca_auth::LocalIssuer::generate().unwrap();
    let signing = PrivateKey::from_pem(issuer.to_pkcs8_pem().as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("issuer.pem");
    let spki = ca_core::SigningKey::public_key(&signing)
        .spki_der()
        .to_vec();
    std::fs::write(&file, pem_block("PUBLIC KEY", &spki)).unwrap();
    let flags = [
        "--token-issuer-keys",
        file.to_str().unwrap(),
        "--token-issuer",
        ca_auth::LocalIssuer::NAME,
    ];
    let ca = Running::start(&flags);
    let account = ca_auth::ServiceAccount::new("shop", "cart").unwrap();
    let token = issuer
        .issue(&account, "istio-ca", Duration::from_secs(60), now())
        .unwrap();
    let (_, csr) = key_and_csr(&[]);
    let answer = Client::connect(&ca, None, Some(token))
        .await
        .ask(&csr, 60)
        .await
        .unwrap();
    assert_eq!(names(answer.chain.leaf()), [CART]);
    assert!(!ca.data_dir().join("local-token-key.pem").exists());
}

fn pem(der: &[u8]) -> String {
    pem_block("CERTIFICATE REQUEST", der)
}

fn pem_block(label: &str, der: &[u8]) -> String {
    der::pem::encode_string(label, der::pem::LineEnding::LF, der).unwrap()
}

/// A wish on behalf of somebody.
fn impersonate(csr: &str, name: &str) -> IstioCertificateRequest {
    IstioCertificateRequest {
        csr: csr.to_owned(),
        validity_duration: 60,
        metadata: Some(prost_types::Struct {
            fields: [(
                "ImpersonatedIdentity".to_owned(),
                prost_types::Value {
                    kind: Some(prost_types::value::Kind::StringValue(name.into())),
                },
            )]
            .into(),
        }),
    }
}

#[tokio::test]
async fn every_outcome_is_on_the_record_and_what_must_be_and_cannot_is_not_released() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let ca = Running::start(&["--audit-log", path.to_str().unwrap(), "--audit-required"]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let (_, csr) = key_and_csr(&[]);
    let issued = client.ask(&csr, 60).await.unwrap();
    client.ask("junk", 60).await.err().unwrap();
    Client::connect(&ca, None, None)
        .await
        .ask(&csr, 60)
        .await
        .err()
        .unwrap();
    let other = impersonate(&csr, "spiffe://cluster.local/ns/shop/sa/other");
    client.send(other).await.err().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let records: Vec<serde_json::Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let outcomes: Vec<_> = records
        .iter()
        .map(|r| r["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["issued", "refused", "refused", "refused"]);
    assert_eq!(
        records[0]["certificate"]["serial"],
        issued.chain.leaf().serial()
    );
    assert_eq!(
        records[0]["certificate"]["fingerprint_sha256"],
        issued.chain.leaf().fingerprint()
    );
    assert_eq!(records[1]["caller"]["identities"][0], CART);
    assert_eq!(records[2].get("caller"), None);
    // Known, and not permitted.
    assert_eq!(records[3]["caller"]["identities"][0], CART);

    let full = Running::start(&["--audit-log", "/dev/full", "--audit-required"]);
    let client = Client::connect(&full, None, Some(full.token(&[]))).await;
    let status = client.ask(&csr, 60).await.err().unwrap();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "request cannot be recorded")
    );
    let lax = Running::start(&["--audit-log", "/dev/full"]);
    Client::connect(&lax, None, Some(lax.token(&[])))
        .await
        .ask(&csr, 60)
        .await
        .unwrap();
}

/// What logrotate does with and without `copytruncate`, what people do, and what a full disk leaves behind.
#[tokio::test]
async fn records_go_on_whoever_moves_deletes_or_cuts_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let ca = Running::start(&["--audit-log", path.to_str().unwrap(), "--audit-required"]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let (_, csr) = key_and_csr(&[]);
    let last = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let serial = line["certificate"]["serial"].as_str().unwrap().to_owned();
        (serial, text.lines().count())
    };
    let serial = async || client.ask(&csr, 60).await.unwrap().chain.leaf().serial();

    let moved = folder.path().join("moved");
    let first = serial().await;
    std::fs::rename(&path, &moved).unwrap();
    assert_eq!((serial().await, 1), last(&path));
    assert_eq!((first, 1), last(&moved));
    std::fs::remove_file(&path).unwrap();
    assert_eq!((serial().await, 1), last(&path));
    std::fs::write(&path, "").unwrap();
    assert_eq!((serial().await, 1), last(&path));
    std::fs::write(&path, "{\"time\":\"20").unwrap();
    assert_eq!((serial().await, 2), last(&path));
}
