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
        "[[deny]]\nname = \"no shop\"\nnamespaces = [\"shop\"]\n\
         [[certificate-authority]]\nname = \"edge\"\ncallers = [\"/ns/mesh/sa/edge\"]\n",
    )
    .unwrap();
    let ca = Running::start(&["--policy", policy.to_str().unwrap()]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    assert!(client.ask(&key_and_csr(&[]).1, 0).await.is_err());
    let report = debug(&ca);
    assert_eq!(report["policy"]["deny"], 1);
    assert_eq!(report["policy"]["certificate_authority"], 1);
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
    until("all three are missing", || {
        let (status, lines) = ca.get("/readyz");
        let missing = |start: &str| {
            let start = format!("missing: {start}");
            lines.lines().any(|line| line.starts_with(&start))
        };
        status == "HTTP/1.1 503 Service Unavailable"
            && lines.starts_with("not ready\n")
            && missing("the signing certificate, or one above it, has expired at ")
            && missing("the audit log /dev/full cannot be written")
            && missing("the serving certificate of grpc has expired at ")
    });
    // Istio's path for the same.
    assert_eq!(ca.get("/ready").0, "HTTP/1.1 503 Service Unavailable");
    // A root that is over has less than nothing left.
    assert!(
        value(
            &ca.get("/metrics").1,
            "citadel_server_root_cert_expiry_seconds"
        ) < 0.0
    );
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

/// Istio's metrics of its CA, with their types and labels: those of them that are counted outside of Kubernetes, on the
/// side of the server.
const ISTIOS: [(&str, &str, &[&str]); 15] = [
    ("citadel_server_csr_count", "counter", &[]),
    (
        "citadel_server_authentication_failure_count",
        "counter",
        &[],
    ),
    ("citadel_server_csr_parsing_err_count", "counter", &[]),
    ("citadel_server_id_extraction_err_count", "counter", &[]),
    ("citadel_server_csr_sign_err_count", "counter", &["error"]),
    ("citadel_server_success_cert_issuance_count", "counter", &[]),
    ("citadel_server_root_cert_expiry_timestamp", "gauge", &[]),
    ("citadel_server_root_cert_expiry_seconds", "gauge", &[]),
    ("citadel_server_cert_chain_expiry_timestamp", "gauge", &[]),
    ("citadel_server_cert_chain_expiry_seconds", "gauge", &[]),
    ("grpc_server_started_total", "counter", &RPC),
    ("grpc_server_msg_received_total", "counter", &RPC),
    ("grpc_server_msg_sent_total", "counter", &RPC),
    ("grpc_server_handling_seconds", "histogram", &RPC),
    (
        "grpc_server_handled_total",
        "counter",
        &["grpc_code", "grpc_method", "grpc_service", "grpc_type"],
    ),
];
const RPC: [&str; 3] = ["grpc_method", "grpc_service", "grpc_type"];

/// What a metric without labels says.
fn value(page: &str, name: &str) -> f64 {
    let start = format!("{name} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&start));
    assert!(value.is_some(), "no {name} in\n{page}");
    value.unwrap().parse().unwrap()
}

/// The names of the labels of one line.
fn labels(line: &str) -> Vec<&str> {
    let inner = line
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    let pairs = inner.map_or("", |(inner, _)| inner).split(',');
    let names = pairs.filter_map(|pair| pair.split_once('=').map(|(name, _)| name));
    let mut names: Vec<_> = names.filter(|name| *name != "le").collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn the_metrics_are_istios_to_the_letter_and_every_one_is_in_the_manual() {
    // A plugged-in CA below a root: the only kind with a chain. A policy, so that its file is counted.
    let root = ca_core::testing::TestCa::new("cluster.local");
    let folder = tempfile::tempdir().unwrap();
    let plugged = folder.path().join("plugged");
    std::fs::create_dir(&plugged).unwrap();
    let (key, below) = crate::authority::intermediate(&root, "below");
    crate::authority::plug_in(&plugged, "1", &key, &below, &root.roots());
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, "own-identity = \"allow\"\n").unwrap();
    let audit = folder.path().join("audit.log");
    let ca = Running::start(&[
        "--root-ca-dir",
        plugged.to_str().unwrap(),
        "--policy",
        policy.to_str().unwrap(),
        "--audit-log",
        audit.to_str().unwrap(),
    ]);
    let csr = key_and_csr(&[]).1;
    let good = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    good.ask(&csr, 0).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(good.ask("junk", 0).await.is_err());
    let bad = Client::connect(&ca, None, Some("junk".into())).await;
    assert!(bad.ask(&csr, 0).await.is_err());

    let text = ca.get("/metrics").1;
    for (name, kind, expected) in ISTIOS {
        let declared = format!("# TYPE {name} {kind}");
        assert!(
            text.lines().any(|l| l == declared),
            "no {declared:?} in\n{text}"
        );
        let suffix = if kind == "histogram" { "_bucket" } else { "" };
        let lines: Vec<_> = text
            .lines()
            .filter(|l| l.split(['{', ' ']).next() == Some(&format!("{name}{suffix}")))
            .collect();
        assert!(!lines.is_empty(), "no value of {name} in\n{text}");
        for line in lines {
            assert_eq!(labels(line), expected, "{line}");
        }
    }
    let method = "grpc_type=\"unary\",grpc_service=\"istio.v1.auth.IstioCertificateService\",grpc_method=\"CreateCertificate\"";
    for line in [
        "citadel_server_csr_count 3".to_owned(),
        "citadel_server_success_cert_issuance_count 1".into(),
        "citadel_server_authentication_failure_count 1".into(),
        "citadel_server_csr_sign_err_count{error=\"CSR_ERROR\"} 1".into(),
        "citadel_server_csr_parsing_err_count 0".into(),
        "citadel_server_id_extraction_err_count 0".into(),
        format!("grpc_server_handled_total{{{method},grpc_code=\"OK\"}} 1"),
        format!("grpc_server_handled_total{{{method},grpc_code=\"InvalidArgument\"}} 1"),
        format!("grpc_server_handled_total{{{method},grpc_code=\"Unauthenticated\"}} 1"),
        "mesh_ca_authentication_count{authenticator=\"jwt\",outcome=\"vouched\"} 2".into(),
        "mesh_ca_authentication_count{authenticator=\"jwt\",outcome=\"rejected\"} 1".into(),
        "mesh_ca_stage_seconds_count{stage=\"sign\"} 1".into(),
        "mesh_ca_file_loads{file=\"ca\"} 1".into(),
        "mesh_ca_file_refusals{file=\"policy\"} 0".into(),
        "mesh_ca_audit_failures 0".into(),
        "mesh_ca_in_flight 0".into(),
        "mesh_ca_ready 1".into(),
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    for (name, certificate) in [
        (
            "citadel_server_root_cert_expiry",
            &root.roots().certificates()[0],
        ),
        ("citadel_server_cert_chain_expiry", below.chain().leaf()),
    ] {
        let end = certificate.not_after();
        let timestamp = value(&text, &format!("{name}_timestamp"));
        assert_eq!(timestamp, end.unix_timestamp() as f64, "{name}");
        let left = value(&text, &format!("{name}_seconds"));
        let expected = (end - ca_core::testing::now()).as_seconds_f64();
        assert!((left - expected).abs() < 60.0, "{name}: {left}");
    }

    let manual = include_str!("../../../docs/operating.md");
    let declared = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for name in declared.filter_map(|line| line.split(' ').next()) {
        let named = [format!("`{name}`"), format!("`{name}{{")];
        assert!(
            named.iter().any(|n| manual.contains(n)),
            "{name} is not in the manual"
        );
    }
}

#[test]
fn steps_of_a_rotation_are_counted_by_how_they_end() {
    let ca = Running::start(&[]);
    let folder = ca.data_dir();
    let rotate = |step: &str| ca_server(&["rotate", step, "--data-dir", folder.to_str().unwrap()]);
    assert!(rotate("status").status.success());
    assert!(!rotate("activate").status.success());
    assert!(rotate("prepare").status.success());
    let text = ca.get("/metrics").1;
    for line in [
        "mesh_ca_rotation_steps{step=\"activate\",outcome=\"failed\"} 1",
        "mesh_ca_rotation_steps{step=\"prepare\",outcome=\"done\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
    assert!(!text.contains("step=\"status\""));
    let report = debug(&ca);
    assert_eq!(report["ca"]["rotation"]["stage"], "prepared");
    assert_eq!(report["ca"]["roots"][1]["role"], "next");
    assert_eq!(
        report["ca"]["rotation"]["next"],
        Value::Null,
        "it is an operator's"
    );
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

#[tokio::test]
async fn the_page_is_a_file_of_its_own_that_runs_nothing_else() {
    let ca = Running::start(&[]);
    let (head, body) = ca.get_whole("/");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let head = head.to_lowercase();
    let policy = head
        .lines()
        .find(|l| l.starts_with("content-security-policy: "));
    let policy = policy.unwrap();
    assert!(
        policy.contains("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(head.contains("x-content-type-options: nosniff"));
    assert!(body.contains("<title>ca-server</title>"));
    assert_eq!(ca.get_as("/", "evil.example").0, "HTTP/1.1 403 Forbidden");
}
