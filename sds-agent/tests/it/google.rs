//! The agent with a CA that speaks the API of Google's Certificate Authority Service, over real TLS. The real one
//! cannot be reached from here.

use std::time::Duration;

use ca_core::testing::TestCa;
use serde_json::json;

use crate::{
    agent::{Agent, Home, checked_chain, checked_roots},
    rest::{Call, Reply, Rest, certify},
};

const POOL: &str = "projects/shop/locations/europe-west1/caPools/mesh";
const AUDIENCE: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k";

/// The service, which takes one access token.
fn answer(ca: &TestCa, other: &TestCa, call: &Call) -> Reply {
    assert_eq!(call.method, "POST");
    if call.header("authorization") != "Bearer ya29.good" {
        let error = json!({"code": 401, "message": "bad token", "status": "UNAUTHENTICATED"});
        return (401, json!({ "error": error }));
    }
    let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
    if path == format!("/v1/{POOL}:fetchCaCerts") {
        let chains = [ca, other].map(|ca| json!({"certificates": [ca.root_pem()]}));
        return (200, json!({ "caCerts": chains }));
    }
    assert_eq!(path, format!("/v1/{POOL}/certificates"));
    assert!(
        query.contains("certificateId=workload-") && query.contains("&requestId="),
        "{query}"
    );
    let body = call.json();
    assert_eq!(
        (&body["lifetime"], &body["subjectMode"]),
        (&json!("86400s"), &json!("REFLECTED_SPIFFE"))
    );
    let (leaf, roots) = certify(
        ca,
        body["pemCsr"].as_str().unwrap(),
        Duration::from_secs(3600),
    );
    (
        200,
        json!({"name": "x", "pemCertificate": leaf, "pemCertificateChain": [roots.to_pem()]}),
    )
}

fn token(token: &str) -> Reply {
    (
        200,
        json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}),
    )
}

/// The service and an agent for it with these flags too.
async fn start(token: &str, more: &[&str]) -> (TestCa, TestCa, Rest, Agent) {
    let [ca, other] = [(); 2].map(|()| TestCa::new("cluster.local"));
    let (one, two) = (ca.clone(), other.clone());
    let server = Rest::over_tls(&ca, move |call| answer(&one, &two, call)).await;
    let home = Home::with(&ca.roots(), token);
    let address = server.address.to_string();
    let mut flags = vec!["--ca-addr", POOL, "--google-addr", &address];
    flags.extend(more);
    let agent = Agent::start_with(home, &flags);
    (ca, other, server, agent)
}

#[tokio::test]
async fn google_signs_with_an_access_token_of_the_metadata_server() {
    let metadata = Rest::in_the_clear(|call| {
        assert_eq!(
            call.path,
            "/computeMetadata/v1/instance/service-accounts/default/token"
        );
        assert_eq!(call.header("metadata-flavor"), "Google");
        token("ya29.good")
    })
    .await;
    let host = metadata.address.to_string();
    let (ca, other, server, agent) = start("unused", &["--metadata-host", &host]).await;
    let mut stream = agent.subscribe(&["default", "ROOTCA"]).await;
    let both = stream.accept().await;
    let roots = ca.roots().merge(&other.roots());
    assert_eq!(checked_roots(&both[0]), roots);
    let chain = checked_chain(&both[1], &roots);
    assert_eq!(chain.iter().count(), 1, "a root is not served");
    assert_eq!(server.paths().len(), 2);
    agent.renew();
    assert_ne!(checked_chain(&stream.accept().await[0], &roots), chain);
    assert_eq!(metadata.paths().len(), 2, "no token is kept");
}

#[tokio::test]
async fn google_signs_with_a_token_that_was_exchanged() {
    let ca = TestCa::new("cluster.local");
    let sts = Rest::over_tls(&ca, |call| {
        assert_eq!(call.path, "/v1/token");
        assert_eq!(
            call.header("content-type"),
            "application/x-www-form-urlencoded"
        );
        assert!(
            call.body
                .contains("&audience=%2F%2Fiam.googleapis.com%2Fprojects%2F1%2F")
        );
        assert!(
            call.body
                .contains("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange")
        );
        if call.body.ends_with("&subject_token=good-token") {
            token("ya29.good")
        } else {
            (
                400,
                json!({"error": "invalid_grant", "error_description": "token of nobody"}),
            )
        }
    })
    .await;
    let address = sts.address.to_string();
    let flags = ["--sts-audience", AUDIENCE, "--sts-addr", &address];
    let (google, _, server, agent) = start("bad-token", &flags).await;
    // Both servers are known by their roots.
    let roots = google.roots().merge(&ca.roots());
    let path = agent.home.path("root-cert.pem");
    std::fs::write(path, roots.to_pem()).unwrap();
    let mut pair = agent.subscribe(&["default"]).await;
    let told = "HTTP 400: invalid_grant: token of nobody";
    let body = agent
        .becomes("/readyz", |_, body| body.contains(told))
        .await;
    assert!(
        !body.contains("bad-token") && server.seen().is_empty(),
        "{body}"
    );
    agent.home.write_token("good-token");
    checked_chain(&pair.accept().await[0], &google.roots());
}

#[tokio::test]
async fn what_google_refuses_is_said_without_the_token() {
    let metadata = Rest::in_the_clear(|_| token("ya29.bad")).await;
    let host = metadata.address.to_string();
    let (_, _, _server, agent) = start("unused", &["--metadata-host", &host]).await;
    let told = "HTTP 401: UNAUTHENTICATED: bad token";
    let body = agent
        .becomes("/readyz", |_, body| body.contains(told))
        .await;
    assert!(!body.contains("ya29"), "{body}");
}

#[tokio::test]
async fn somebody_in_the_place_of_the_metadata_server_is_not_believed() {
    // An HTTP server that says nothing of being Google's.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let page = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    tokio::spawn(async move {
        loop {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(page.as_bytes()).await;
        }
    });
    let (_, _, server, agent) = start("unused", &["--metadata-host", &host]).await;
    let told = "is not a metadata server";
    agent
        .becomes("/readyz", |_, body| body.contains(told))
        .await;
    assert!(server.seen().is_empty());
}
