//! What an operator sees of a server: `/readyz`, `/debug`, `ca-server status`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Output};
use std::time::Instant;

use ca_core::TrustBundle;
use serde_json::Value;

use crate::client::{Client, key_and_csr};
use crate::running::{self, Running};

fn ca_server(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ca-server"))
        .args(words)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn debug(ca: &Running) -> Value {
    let (status, body) = ca.get("/debug");
    assert_eq!(status, "HTTP/1.1 200 OK", "{body}");
    serde_json::from_str(&body).unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + running::DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn the_debug_page_tells_everything_but_secrets() {
    let ca = Running::start(&[]);
    let (token, csr) = (ca.token(&[]), key_and_csr(&[]).1);
    let good = Client::connect(&ca, None, Some(token.clone())).await;
    good.ask(&csr, 0).await.unwrap_or_else(|e| panic!("{e}"));
    let (head, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", signature.replace(['a', 'b', 'c', 'd'], "x"));
    let bad = Client::connect(&ca, None, Some(forged.clone())).await;
    assert!(bad.ask(&csr, 0).await.is_err());

    let report = debug(&ca);
    let roots = TrustBundle::from_pem(ca.root_pem().as_bytes()).unwrap();
    let root = roots.certificates()[0].fingerprint();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["trust_domain"], "cluster.local");
    assert_eq!(report["readiness"]["ready"], true);
    assert_eq!(report["ca"]["kind"], "self-signed");
    assert_eq!(report["ca"]["generation"], 1);
    assert_eq!(
        report["ca"]["signing_certificate"]["fingerprint_sha256"],
        root
    );
    assert_eq!(report["ca"]["roots"][0]["fingerprint_sha256"], root);
    assert_eq!(report["ca"]["roots"][0]["role"], "signs");
    assert_eq!(report["ca"]["rotation"]["stage"], "steady");
    assert_eq!(report["ca"]["rotation"]["next"]["step"], "renew");
    assert_eq!(report["ca"]["files"], Value::Null);
    let names: Vec<_> = report["authenticators"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    assert_eq!(names.len(), 2);
    assert_eq!(names[1]["issuer"], "mesh-ca-local");
    assert_eq!(
        names[1]["keys"]["fingerprints"].as_array().unwrap().len(),
        1
    );
    assert_eq!(report["requests"]["received"], 2);
    assert_eq!(report["requests"]["issued"], 1);
    assert_eq!(report["requests"]["refused"], 1);

    let refusal = &report["refusals"][0];
    assert!(refusal["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let reasons = refusal["authenticators"].as_array().unwrap();
    assert_eq!(reasons[0]["reason"], "not presented");
    let reason = reasons[1]["reason"].as_str().unwrap();
    assert!(reason.contains("signature"), "{reason}");
    let all = report.to_string();
    for secret in [&token, &forged, head] {
        assert!(!all.contains(secret), "a token is shown");
    }
    assert!(!all.contains("PRIVATE KEY"));
}

#[tokio::test]
async fn a_policy_and_its_refusals_are_shown_and_so_is_whom_it_denies() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    std::fs::write(
        &policy,
        "[[deny]]\nname = \"no shop\"\nnamespaces = [\"shop\"]\n",
    )
    .unwrap();
    let ca = Running::start(&["--policy", policy.to_str().unwrap()]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    assert!(client.ask(&key_and_csr(&[]).1, 0).await.is_err());
    let report = debug(&ca);
    assert_eq!(report["policy"]["deny"], 1);
    assert_eq!(report["policy"]["file"]["path"], policy.to_str().unwrap());
    assert_eq!(report["policy"]["file"]["is_refused"], false);
    let refusal = &report["refusals"][0];
    assert_eq!(
        refusal["caller"][0],
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert!(refusal["reason"].as_str().unwrap().contains("\"no shop\""));

    std::fs::write(&policy, "nonsense = 1").unwrap();
    until("the refusal of the policy", || {
        debug(&ca)["policy"]["file"]["is_refused"] == true
    });
    let (status, lines) = ca.get("/readyz");
    assert_eq!(status, "HTTP/1.1 200 OK", "the old policy is good");
    assert!(lines.starts_with("ready\nnote: the policy "), "{lines}");
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

#[tokio::test]
async fn what_is_missing_is_told_line_by_line() {
    // A device that is always full, and a root that is over almost at once.
    let ca = Running::start(&[
        "--audit-log",
        "/dev/full",
        "--audit-required",
        "--self-signed-ca-cert-ttl",
        "3s",
        "--root-check-interval",
        "0s",
    ]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    assert!(client.ask(&key_and_csr(&[]).1, 0).await.is_err());
    until("both things are missing", || {
        let (status, lines) = ca.get("/readyz");
        let lines: Vec<_> = lines.lines().collect();
        status == "HTTP/1.1 503 Service Unavailable"
            && lines.len() == 3
            && lines[0] == "not ready"
            && lines[1]
                .starts_with("missing: the signing certificate, or one above it, has expired")
            && lines[2] == "missing: the audit log /dev/full cannot be written"
    });
    let status = ca_server(&["status", "--admin", &ca.admin]);
    assert_eq!(status.status.code(), Some(1));
    assert!(text(&status.stdout).starts_with("ca-server 0.1.0: not ready\n  missing "));
}

#[test]
fn status_says_the_same_through_the_data_folder_and_through_the_admin_listener() {
    let ca = Running::start(&[]);
    let folder = ca.data_dir();
    let folder = folder.to_str().unwrap();
    let ways: [&[&str]; 3] = [
        &["status", "--data-dir", folder],
        &["--data-dir", folder, "status"],
        &["status", "--admin", &ca.admin],
    ];
    let roots = TrustBundle::from_pem(ca.root_pem().as_bytes()).unwrap();
    let root = roots.certificates()[0].fingerprint();
    for way in ways {
        let output = ca_server(way);
        let shown = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(shown.starts_with("ca-server 0.1.0: ready\n"), "{shown}");
        assert!(shown.contains(&root), "{shown}");
        let json = ca_server(&[way, &["--json"]].concat());
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json["ca"]["roots"][0]["fingerprint_sha256"], root);
    }
    let nobody = tempfile::tempdir().unwrap();
    let output = ca_server(&["status", "--data-dir", nobody.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no ca-server runs on it"));
}

/// An address of this machine that is not loopback, if it has one. Nothing is sent.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address) if !address.ip().is_loopback() => Some(*address.ip()),
        _ => None,
    }
}

#[test]
fn who_is_elsewhere_gets_probes_and_metrics_and_nothing_about_callers() {
    let elsewhere = own_address();
    // Without a network there is nobody elsewhere; whoever names another host is refused all the same.
    let address = elsewhere.unwrap_or(Ipv4Addr::LOCALHOST);
    let free = TcpListener::bind((address, 0)).unwrap();
    let admin = free.local_addr().unwrap().to_string();
    drop(free);
    let ca = Running::start(&["--admin-listen", &admin]);
    let page = |path: &str, host: &str| -> String { ca.get_as(path, host).0 };
    assert_eq!(page("/readyz", "ca.example"), "HTTP/1.1 200 OK");
    assert_eq!(page("/metrics", "ca.example"), "HTTP/1.1 200 OK");
    assert_eq!(page("/debug", "ca.example"), "HTTP/1.1 403 Forbidden");
    if elsewhere.is_some() {
        assert_eq!(page("/debug", "localhost"), "HTTP/1.1 403 Forbidden");
    }
}
