//! Traces, judged at a collector that decodes what it is sent. With the feature `otel`.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ca_core::SubjectName;
use ca_core::testing::{TestCa, now};
use ca_proto::istio::v1::auth::IstioCertificateRequest;
use ca_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use ca_proto::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use ca_proto::opentelemetry::proto::common::v1::KeyValue;
use ca_proto::opentelemetry::proto::common::v1::any_value::Value;
use ca_proto::opentelemetry::proto::trace::v1::Span;
use ca_proto::opentelemetry::proto::trace::v1::span::SpanKind;
use futures_util::future::join_all;
use prost::Message as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tonic::{Code, Request, Status};

use crate::client::{Client, key_and_csr};
use crate::running::{self, Running};

/// Takes what it is sent, as an OpenTelemetry collector does.
struct Collector {
    address: String,
    received: mpsc::Receiver<Vec<u8>>,
    /// What it answers.
    status: Arc<AtomicU16>,
}

impl Collector {
    fn start(status: u16, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let (sender, received) = mpsc::channel();
        let status = Arc::new(AtomicU16::new(status));
        let answers = Arc::clone(&status);
        // Ends with the test's process: nobody waits for it.
        std::thread::spawn(move || {
            while let Ok((tcp, _)) = listener.accept() {
                tcp.set_read_timeout(Some(running::DEADLINE)).unwrap();
                let status = answers.load(Ordering::SeqCst);
                let taken = match &tls {
                    None => take(tcp, status),
                    Some(tls) => {
                        let session = rustls::ServerConnection::new(Arc::clone(tls)).unwrap();
                        take(rustls::StreamOwned::new(session, tcp), status)
                    }
                };
                // The test is over when nobody listens.
                let _ = taken.map(|body| sender.send(body));
            }
        });
        Self {
            address,
            received,
            status,
        }
    }

    /// Everything in one request, as it was on the wire.
    fn one(&self) -> Vec<u8> {
        self.received.recv_timeout(running::DEADLINE).unwrap()
    }
}

/// One request, whose body it returns.
fn take(stream: impl Read + Write, status: u16) -> std::io::Result<Vec<u8>> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head)?, 0, "no whole head: {head}");
    }
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/x-protobuf\r\n"));
    let length = head.split("content-length: ").nth(1).unwrap();
    let length = length.split('\r').next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let stream = stream.get_mut();
    write!(
        stream,
        "HTTP/1.1 {status} S\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    stream.flush()?;
    Ok(body)
}

/// The spans of everything that was sent, by trace.
fn spans(body: &[u8]) -> Vec<Span> {
    let mut request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut program = request.resource_spans.pop().unwrap();
    assert!(request.resource_spans.is_empty());
    let resource = program.resource.unwrap();
    assert_eq!(value(&resource.attributes, "service.name"), "mesh-ca");
    let library = program.scope_spans.pop().unwrap();
    assert!(program.scope_spans.is_empty());
    assert_eq!(library.scope.unwrap().name, "ca-server");
    library.spans
}

/// What is said under a name; nothing when it is not there.
fn value(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let shown = |value: &Option<Value>| match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("neither text nor a number: {other:?}"),
    };
    match found.and_then(|found| found.value.clone()?.value) {
        None => String::new(),
        Some(Value::ArrayValue(array)) => {
            let values: Vec<_> = array.values.iter().map(|v| shown(&v.value)).collect();
            values.join(",")
        }
        other => shown(&other),
    }
}

async fn ask(client: &Client, csr: &str, traceparent: Option<&str>) -> Result<(), Status> {
    let mut request = Request::new(IstioCertificateRequest {
        csr: csr.into(),
        ..IstioCertificateRequest::default()
    });
    let mut add = |name: &'static str, value: &str| {
        request.metadata_mut().insert(name, value.parse().unwrap());
    };
    if let Some(token) = &client.token {
        add("authorization", &format!("Bearer {token}"));
    }
    if let Some(traceparent) = traceparent {
        add("traceparent", traceparent);
        add("tracestate", "vendor=1");
    }
    let mut service = IstioCertificateServiceClient::new(client.channel.clone());
    service.create_certificate(request).await.map(|_| ())
}

#[tokio::test]
async fn a_request_is_a_tree_of_spans_below_the_span_of_its_caller() {
    let collector = Collector::start(200, None);
    let ca = Running::start(&["--otlp-endpoint", &format!("http://{}", collector.address)]);
    let (token, csr) = (ca.token(&[]), key_and_csr(&[]).1);
    let client = Client::connect(&ca, None, Some(token.clone())).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";
    ask(&client, &csr, Some(&format!("{parent}1")))
        .await
        .unwrap();
    // Its caller does not want to see this one.
    ask(&client, &csr, Some(&format!("{parent}0")))
        .await
        .unwrap();
    let stranger = Client {
        channel: client.channel.clone(),
        token: Some(format!("{token}x")),
    };
    let refused = ask(&stranger, &csr, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    drop((client, stranger));
    // The end does not wait until there is more to send.
    assert!(ca.signal("TERM").0.success());

    let body = collector.one();
    let spans = spans(&body);
    let roots: Vec<_> = spans
        .iter()
        .filter(|span| span.kind() == SpanKind::Server)
        .collect();
    let [issued, refused] = roots[..] else {
        panic!("{spans:?}");
    };
    let below = |root: &Span| -> Vec<&Span> {
        let below = |span: &&Span| span.parent_span_id == root.span_id;
        spans.iter().filter(below).collect()
    };
    for (root, code, steps) in [
        (
            issued,
            "0",
            &["authenticate", "authorize", "queue", "check", "sign"][..],
        ),
        (refused, "16", &["authenticate"]),
    ] {
        assert_eq!(
            root.name,
            "istio.v1.auth.IstioCertificateService/CreateCertificate"
        );
        assert_eq!(value(&root.attributes, "rpc.system"), "grpc");
        assert_eq!(
            value(&root.attributes, "rpc.service"),
            "istio.v1.auth.IstioCertificateService"
        );
        assert_eq!(value(&root.attributes, "rpc.method"), "CreateCertificate");
        assert_eq!(value(&root.attributes, "rpc.grpc.status_code"), code);
        // The fault is not the server's.
        assert_eq!(root.status, None);
        let mut end = root.start_time_unix_nano;
        let below = below(root);
        let names: Vec<_> = below.iter().map(|span| &*span.name).collect();
        assert_eq!(names, steps);
        for step in below {
            assert_eq!(step.trace_id, root.trace_id);
            assert_eq!(step.kind(), SpanKind::Internal);
            assert_eq!(step.flags, 0x101);
            assert!(step.start_time_unix_nano >= end, "{spans:?}");
            assert!(step.end_time_unix_nano >= step.start_time_unix_nano);
            end = step.end_time_unix_nano;
        }
        assert!(root.end_time_unix_nano >= end);
    }
    assert_eq!(spans.len(), 8);
    let mut ids: Vec<_> = spans.iter().map(|span| &span.span_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 8, "each span has a name of its own");

    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    assert_eq!(hex(&issued.trace_id), parent[3..35]);
    assert_eq!(hex(&issued.parent_span_id), parent[36..52]);
    assert_eq!((&*issued.trace_state, issued.flags), ("vendor=1", 0x301));
    assert_eq!(
        value(&issued.attributes, "mesh_ca.identities"),
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert_eq!(value(&issued.attributes, "mesh_ca.authenticator"), "jwt");
    assert_eq!(refused.parent_span_id, [0; 0]);
    assert_eq!((refused.trace_id.len(), refused.flags), (16, 0x101));
    assert_ne!(refused.trace_id, issued.trace_id);
    assert_eq!(value(&refused.attributes, "mesh_ca.identities"), "");

    // What was shown and asked for stays here.
    let text = String::from_utf8_lossy(&body);
    for part in token.split('.').chain(csr.lines().skip(1)) {
        assert!(!text.contains(part), "{part}");
    }
}

fn metric(ca: &Running, name: &str) -> Option<u64> {
    let text = ca.get("/metrics").1;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = lines.find(|(found, _)| *found == name)?;
    Some(value.parse().unwrap())
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + running::DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// So many requests are sent at once; each is six spans.
const BATCH: u64 = 256;

async fn fill(client: &Client, csr: &str) {
    // Fewer at once than one address may have under way.
    for _ in 0..4 {
        let asked = (0..BATCH / 4).map(|_| ask(client, csr, None));
        for answer in join_all(asked).await {
            answer.unwrap();
        }
    }
}

#[tokio::test]
async fn a_collector_that_is_away_costs_no_request_and_what_is_lost_is_counted() {
    let failing = Collector::start(503, None);
    // Nobody has ever listened on the other.
    for address in [failing.address.as_str(), "127.0.0.1:1"] {
        let ca = Running::start(&["--otlp-endpoint", &format!("http://{address}")]);
        let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
        let csr = key_and_csr(&[]).1;
        fill(&client, &csr).await;
        until("dropped", || {
            metric(&ca, "mesh_ca_spans_dropped") == Some(6 * BATCH)
        });
        assert_eq!(metric(&ca, "mesh_ca_spans_exported"), Some(0));
        if address == failing.address {
            failing.status.store(200, Ordering::SeqCst);
            fill(&client, &csr).await;
            until("exported", || {
                metric(&ca, "mesh_ca_spans_exported") == Some(6 * BATCH)
            });
            assert_eq!(metric(&ca, "mesh_ca_spans_dropped"), Some(6 * BATCH));
        }
    }
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_neither_requests_nor_the_end() {
    // Connections are accepted by the system, and by nobody else.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let ca = Running::start(&["--otlp-endpoint", &endpoint, "--shutdown-duration", "1s"]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let csr = key_and_csr(&[]).1;
    // One batch is under way when the next requests come.
    fill(&client, &csr).await;
    let held = silent.accept().unwrap();
    ask(&client, &csr, None).await.unwrap();
    drop(client);
    let told = Instant::now();
    assert!(ca.signal("TERM").0.success());
    let took = told.elapsed();
    assert!(
        took < Duration::from_secs(8),
        "the batch may take 10 s, the end 1 s: {took:?}"
    );
    drop(held);
}

#[tokio::test]
async fn a_collector_is_reached_over_tls_and_verified() {
    let authority = TestCa::new("collector.example");
    let names: Vec<SubjectName> = vec!["localhost".parse().unwrap()];
    let (key, chain) = authority.identity(&names, Duration::from_secs(3600), now());
    let certificates = chain.iter().map(|c| CertificateDer::from(c.der().to_vec()));
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates.collect(), key)
        .unwrap();
    let collector = Collector::start(200, Some(Arc::new(tls)));
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, authority.root_pem()).unwrap();
    let endpoint = format!("https://{}", collector.address);
    let flags = ["--otlp-endpoint", &endpoint, "--otlp-certificate"];
    let ca = Running::start(&[&flags[..], &[roots.to_str().unwrap()]].concat());
    let client = Client::connect(&ca, None, None).await;
    assert!(ask(&client, "", None).await.is_err());
    drop(client);
    assert!(ca.signal("TERM").0.success());
    assert_eq!(spans(&collector.one()).len(), 2);
}

#[tokio::test]
async fn nothing_is_collected_unless_somebody_asks_for_it() {
    let ca = Running::start(&[]);
    assert_eq!(metric(&ca, "mesh_ca_spans_dropped"), None);
    let output = Command::new(env!("CARGO_BIN_EXE_ca-server"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
        .arg("config")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("otlp-endpoint"));
    let line = line.unwrap();
    assert!(
        line.ends_with("# environment OTEL_EXPORTER_OTLP_ENDPOINT"),
        "{line}"
    );
}
