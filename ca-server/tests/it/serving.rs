//! The certificates that the server shows, to clients that are not ours: what they see, and what they do not notice.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ca_core::testing::{TestCa, now};
use ca_core::{
    Certificate, CertificateChain, KeyKind, PrivateKey, SigningKey as _, SubjectName, TrustBundle,
};
use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name, Ttl};
use domain::rdata::A;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Identity;

use crate::client::{self, Client};
use crate::running::{self, DEADLINE, Running};

type Connection = TlsStream<TcpStream>;

/// Connects as anybody would who trusts `roots`.
pub(crate) async fn connect(
    address: &str,
    roots: &str,
    protocols: &[&str],
) -> io::Result<Connection> {
    connect_with(address, roots, protocols, aws_lc_rs::default_provider()).await
}

async fn connect_with(
    address: &str,
    roots: &str,
    protocols: &[&str],
    provider: CryptoProvider,
) -> io::Result<Connection> {
    let mut store = RootCertStore::empty();
    for root in TrustBundle::from_pem(roots.as_bytes())
        .unwrap()
        .certificates()
    {
        let root = CertificateDer::from(root.der().to_vec());
        store.add(root).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().into())
        .collect();
    let connector = TlsConnector::from(Arc::new(config));
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    timeout(DEADLINE, connector.connect(name, socket)).await?
}

fn shown(connection: &Connection) -> Certificate {
    let certificates = connection.get_ref().1.peer_certificates().unwrap();
    Certificate::from_der(certificates[0].to_vec()).unwrap()
}

/// Asks for `what` until it is as wanted, and returns it.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::task::yield_now().await;
    }
}

/// What a new connection is shown, once that is not `old`.
async fn successor(address: &str, roots: impl Fn() -> String, old: &Certificate) -> Certificate {
    until("another certificate", async || {
        // Whoever has not learned of a new root cannot connect: the file is followed meanwhile.
        let connection = connect(address, &roots(), &[]).await.ok()?;
        Some(shown(&connection)).filter(|shown| shown != old)
    })
    .await
}

/// An HTTP/2 connection: alive as long as its pings are answered.
struct Http2(Connection);

/// Kinds of frames.
const PING: u8 = 6;
const GOAWAY: u8 = 7;

impl Http2 {
    async fn begin(mut connection: Connection) -> Self {
        const NO_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        connection.write_all(preface).await.unwrap();
        connection.write_all(&NO_SETTINGS).await.unwrap();
        let mut http2 = Self(connection);
        http2.ping().await;
        http2
    }

    async fn ping(&mut self) {
        let mut frame = vec![0, 0, 8, PING, 0, 0, 0, 0, 0];
        frame.extend(*b"are you?");
        self.0.write_all(&frame).await.unwrap();
        loop {
            let (kind, flags, body) = self.next().await.expect("a living connection");
            let is_acknowledged = flags & 1 == 1;
            if kind == PING && is_acknowledged {
                assert_eq!(body, b"are you?");
                return;
            }
        }
    }

    /// The next frame: its kind, its flags, and what it holds. `None` when the connection has ended.
    async fn next(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        let read = timeout(DEADLINE, self.0.read_exact(&mut head)).await;
        read.expect("a frame in time").ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).await.ok()?;
        Some((head[3], head[4], body))
    }
}

/// One page over HTTP/1.1, on a connection that stays open.
async fn get(connection: &mut Connection, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    loop {
        let mut buffer = [0; 1024];
        let read = timeout(DEADLINE, connection.read(&mut buffer)).await;
        let count = read.unwrap().unwrap();
        assert!(count > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() == length.unwrap().parse::<usize>().unwrap() {
            return (head.to_owned(), body.to_owned());
        }
    }
}

fn metric(ca: &Running, name: &str, certificate: &str) -> f64 {
    let page = ca.get("/metrics").1;
    let line = format!("{name}{{name=\"{certificate}\"}} ");
    let value = page.lines().find_map(|found| found.strip_prefix(&line));
    assert!(value.is_some(), "no {line} in\n{page}");
    value.unwrap().parse().unwrap()
}

const EXPIRY: &str = "mesh_ca_serving_certificate_expiry_timestamp";
const FAILURES: &str = "mesh_ca_serving_certificate_failures";

#[tokio::test]
async fn certificates_are_renewed_by_lifetime_on_every_listener_and_no_open_connection_ends() {
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().join("serving");
    let ca = Running::start(&[
        "--serving-cert-ttl",
        "4s",
        "--webhook-listen",
        "127.0.0.1:0",
        "--serving-certs-dir",
        written.to_str().unwrap(),
        "--serving-cert",
        "sidecar=sidecar.example.com",
    ]);
    let root = || ca.root_pem();
    let webhook = ca.announced("webhook");
    let requests = connect(&ca.serving, &root(), &["h2"]).await.unwrap();
    let first = shown(&requests);
    let mut requests = Http2::begin(requests).await;
    let mut hooks = connect(&webhook, &root(), &["http/1.1"]).await.unwrap();
    assert_eq!(get(&mut hooks, "/healthz").await.1, "ok\n");
    let first_of_webhook = shown(&hooks);
    assert_ne!(first, first_of_webhook, "each has a key of its own");
    assert!(metric(&ca, EXPIRY, "grpc") >= first.not_after().unix_timestamp() as f64);

    // Both ends of the file: what a reader finds is what is shown, in one piece.
    let pair = |name: &str| {
        let current = std::fs::canonicalize(written.join(name).join("..data")).unwrap();
        let read = |file| std::fs::read(current.join(file));
        let key = PrivateKey::from_pem(&read("key.pem").ok()?).unwrap();
        let chain = CertificateChain::from_pem(&read("cert-chain.pem").ok()?).unwrap();
        assert_eq!(key.public_key(), chain.leaf().public_key());
        Some(chain.leaf().clone())
    };
    let second = successor(&ca.serving, root, &first).await;
    until("files of the second certificate", async || {
        pair("grpc").filter(|written| written.not_before() >= second.not_before())
    })
    .await;
    successor(&webhook, root, &first_of_webhook).await;
    let sidecar = pair("sidecar").unwrap();
    assert_eq!(sidecar.names(), ["sidecar.example.com".parse().unwrap()]);
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(written.join("webhook")), 0o700);
    assert_eq!(mode(written.join("webhook/key.pem")), 0o600);

    requests.ping().await;
    assert_eq!(get(&mut hooks, "/healthz").await.1, "ok\n");
    assert_eq!(metric(&ca, FAILURES, "grpc"), 0.0);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_told_and_keeps_no_listener_from_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--serving-cert-ttl", "4s", "--serving-certs-dir"];
    let ca = Running::start(&[&flags[..], &[folder.path().to_str().unwrap()]].concat());
    let first = shown(&connect(&ca.serving, &ca.root_pem(), &[]).await.unwrap());
    let path = folder.path().join("grpc");
    std::fs::rename(&path, folder.path().join("aside")).unwrap();
    std::fs::write(&path, "in the way").unwrap();
    until("the failure to write", async || {
        let page = ca.get("/readyz").1;
        page.contains("serving certificate of grpc: certificate not written: ")
            .then_some(())
    })
    .await;
    assert!(metric(&ca, FAILURES, "grpc") > 0.0);
    successor(&ca.serving, || ca.root_pem(), &first).await;

    std::fs::remove_file(&path).unwrap();
    until("the files", async || {
        path.join("key.pem").exists().then_some(())
    })
    .await;
    until("the end of the failure", async || {
        (ca.get("/readyz").1 == "ready\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_new_root_is_taken_for_both_directions_while_clients_of_the_old_one_stay_connected() {
    let ca = Running::start(&[]);
    let old_root = ca.root_pem();
    let before = connect(&ca.serving, &old_root, &["h2"]).await.unwrap();
    let first = shown(&before);
    let mut before = Http2::begin(before).await;
    let rotate = |step: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ca-server"));
        command
            .args(["rotate", step, "--data-dir"])
            .arg(ca.data_dir());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    rotate("prepare");
    rotate("activate");
    let roots = TrustBundle::from_pem(ca.root_pem().as_bytes()).unwrap();
    let old_roots = TrustBundle::from_pem(old_root.as_bytes()).unwrap();
    let mut new_root = roots.certificates().to_vec();
    new_root.retain(|root| !old_roots.contains(root));
    let new_root = TrustBundle::new(new_root).unwrap();
    let second = until("a certificate of the new root", async || {
        let connection = connect(&ca.serving, new_root.to_pem(), &[]).await.ok()?;
        Some(shown(&connection))
    })
    .await;
    assert_ne!(second, first);
    before.ping().await;

    // Signed by the new root alone, and believed by the listener.
    let (key, csr) = client::key_and_csr(&[]);
    let with_token = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let answer = with_token.ask(&csr, 600).await.unwrap();
    answer.chain.verify(&new_root, now()).unwrap();
    let identity = Identity::from_pem(answer.chain.to_pem(), key.to_pkcs8_pem().as_str());
    let with_certificate = Client::connect(&ca, Some(identity), None).await;
    with_certificate.ask(&csr, 600).await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_sign_of_life_is_given_up_and_one_that_is_here_for_long_is_sent_away() {
    let ca = Running::start(&["--keepalive-interval", "1s", "--keepalive-timeout", "1s"]);
    let connection = connect(&ca.serving, &ca.root_pem(), &["h2"]).await.unwrap();
    let mut silent = Http2::begin(connection).await;
    let mut was_asked = false;
    while let Some((kind, flags, _)) = silent.next().await {
        was_asked |= kind == PING && flags == 0;
    }
    assert!(was_asked);

    let ca = Running::start(&["--max-connection-age", "1s"]);
    let connection = connect(&ca.serving, &ca.root_pem(), &["h2"]).await.unwrap();
    let mut old = Http2::begin(connection).await;
    while old.next().await.expect("a farewell").0 != GOAWAY {}
}

/// A certificate of an operator's own, in files.
pub(crate) struct OperatorsFiles {
    pub(crate) ca: TestCa,
    folder: tempfile::TempDir,
}

impl OperatorsFiles {
    pub(crate) fn new() -> Self {
        let files = Self {
            ca: TestCa::new("operator.example"),
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(files.path("ca.crt"), files.ca.root_pem()).unwrap();
        let (key, certificate) = files.make();
        files.put("tls.crt", &certificate.to_pem());
        files.put("tls.key", key.to_pkcs8_pem().as_str());
        files
    }

    fn make(&self) -> (PrivateKey, CertificateChain) {
        let names: [SubjectName; 1] = ["localhost".parse().unwrap()];
        self.ca.identity(&names, Duration::from_secs(3600), now())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Whole, as every careful tool does it.
    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path("new"), text).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    pub(crate) fn flags(&self) -> Vec<String> {
        let flag = |flag: &str, name| format!("--{flag}={}", self.path(name).display());
        vec![
            flag("caCertFile", "ca.crt"),
            flag("tlsCertFile", "tls.crt"),
            flag("tlsKeyFile", "tls.key"),
        ]
    }
}

#[tokio::test]
async fn files_win_over_the_own_ca_and_are_replaced_while_connections_are_open() {
    let files = OperatorsFiles::new();
    let flags = files.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let ca = Running::start(&flags);
    let root = files.ca.root_pem();
    let open = connect(&ca.serving, &root, &["h2"]).await.unwrap();
    let first = shown(&open);
    assert!(first.issuer_der() == files.ca.roots().certificates()[0].subject_der());
    let mut open = Http2::begin(open).await;

    // One of the two is not taken, and told.
    let (key, certificate) = files.make();
    files.put("tls.crt", &certificate.to_pem());
    until("the refusal of a mixed pair", async || {
        (metric(&ca, FAILURES, "grpc") > 0.0).then_some(())
    })
    .await;
    let page = ca.get("/readyz").1;
    assert!(page.starts_with("ready\n"), "{page}");
    assert!(
        page.contains("serving certificate of grpc: files not taken: the key in "),
        "{page}"
    );
    let connection = connect(&ca.serving, &root, &[]).await.unwrap();
    assert_eq!(shown(&connection), first);

    files.put("tls.key", key.to_pkcs8_pem().as_str());
    let second = successor(&ca.serving, || root.clone(), &first).await;
    assert_eq!(second, *certificate.leaf());
    until("the end of the refusal", async || {
        (ca.get("/readyz").1 == "ready\n").then_some(())
    })
    .await;
    open.ping().await;
}

#[tokio::test]
async fn clients_may_have_certificates_below_the_operators_ca_file() {
    let files = OperatorsFiles::new();
    let flags = files.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let ca = Running::start(&flags);
    let names = ["spiffe://operator.example/ns/a/sa/b".parse().unwrap()];
    let (key, chain) = files.ca.identity(&names, Duration::from_secs(600), now());
    let mut store = RootCertStore::empty();
    let root = files.ca.roots().certificates()[0].der().to_vec();
    store.add(CertificateDer::from(root)).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec());
    let chain = chain.iter().map(|c| CertificateDer::from(c.der().to_vec()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_client_auth_cert(chain.collect(), key.into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = TcpStream::connect(&ca.serving).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = TlsConnector::from(Arc::new(config)).connect(name, socket);
    // In TLS 1.3 a certificate that is not believed ends the connection after the handshake: a ping tells.
    Http2::begin(connection.await.unwrap()).await;
}

#[tokio::test]
async fn openssl_and_http_clients_of_both_versions_reach_the_webhook_endpoint() {
    let ca = Running::start(&["--webhook-listen", "127.0.0.1:0"]);
    let webhook = ca.announced("webhook");
    let mut http1 = connect(&webhook, &ca.root_pem(), &["http/1.1"])
        .await
        .unwrap();
    let (head, body) = get(&mut http1, "/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(body, "ok\n");
    let (head, body) = get(&mut http1, "/inject").await;
    assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(
        serde_json::from_str::<serde_json::Value>(&body).is_ok(),
        "{body}"
    );
    let http2 = connect(&webhook, &ca.root_pem(), &["h2", "http/1.1"]).await;
    Http2::begin(http2.unwrap()).await;

    let root = ca.data_dir().join("root-cert.pem");
    let output = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &webhook,
            "-verify_hostname",
            "localhost",
        ])
        .args(["-verify_return_error", "-alpn", "h2,http/1.1", "-CAfile"])
        .arg(root)
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    let text = String::from_utf8_lossy(&output.stdout);
    for line in [
        "ALPN protocol: h2",
        "Verify return code: 0 (ok)",
        "No client certificate CA names sent",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    let (status, _) = ca.signal("TERM");
    assert!(
        status.success(),
        "open connections do not keep it: {status}"
    );
}

#[test]
fn what_cannot_be_served_with_keeps_the_server_from_starting_and_says_why() {
    let files = OperatorsFiles::new();
    let flags = files.flags();
    files.put(
        "tls.key",
        PrivateKey::generate(KeyKind::EcdsaP256)
            .unwrap()
            .to_pkcs8_pem()
            .as_str(),
    );
    let all: Vec<&str> = flags.iter().map(String::as_str).collect();
    let cases: &[(&[&str], &str)] = &[
        (
            &all[..2],
            "--ca-cert-file, --tls-cert-file and --tls-key-file: all three or none",
        ),
        (&all, "serving certificate: the key in "),
        (
            &["--cert-provider", "kubernetes"],
            "name the signer with --k8s-signer",
        ),
        (
            &["--compliance-policy", "fips"],
            "compliance policy \"fips\": known are",
        ),
        (&["--dns-listen", "127.0.0.1:0"], "--dns-upstream"),
    ];
    for (flags, told) in cases {
        let folder = tempfile::tempdir().unwrap();
        let child = running::spawn(&running::data_dir(&folder), flags);
        let (status, text) = running::wait_for_failure(child);
        assert!(!status.success(), "{flags:?}");
        assert!(text.contains(told), "{flags:?} said {text:?}");
    }
}

#[tokio::test]
async fn a_compliance_policy_holds_on_the_wire_and_without_a_certificate_nobody_gets_in() {
    let ca = Running::start(&["--compliance-policy", "pqc"]);
    connect(&ca.serving, &ca.root_pem(), &["h2"]).await.unwrap();
    let mut classical = aws_lc_rs::default_provider();
    classical.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let refused = connect_with(&ca.serving, &ca.root_pem(), &["h2"], classical).await;
    assert!(refused.is_err());

    let ca = Running::start(&["--cert-provider", "none"]);
    let refused = connect(&ca.serving, &ca.root_pem(), &["h2"]).await;
    assert!(refused.is_err());
    let page = ca.get("/readyz").1;
    assert!(
        page.contains("serving certificate of grpc: there is no certificate"),
        "{page}"
    );
}

/// A resolver on one port of UDP and TCP, which knows a few names.
async fn resolver() -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // Somebody may have the port for TCP.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (count, peer) = udp.recv_from(&mut buffer).await.unwrap();
            if let Some(answer) = resolve(&buffer[..count], true) {
                udp.send_to(&answer, peer).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let question = receive(&mut stream).await.unwrap();
            let answer = resolve(&question, false).unwrap();
            send(&mut stream, &answer).await;
        }
    });
    address
}

fn resolve(question: &[u8], is_datagram: bool) -> Option<Vec<u8>> {
    let question = Message::from_octets(question).unwrap();
    let name = question.sole_question().unwrap().into_qname().to_string();
    let count = match name.as_str() {
        "many.example" => 1000,
        "silent.example" => return None,
        _ => 1,
    };
    let answer = MessageBuilder::new_vec().start_answer(&question, Rcode::NOERROR);
    let mut answer = answer.unwrap();
    if is_datagram && count > 1 {
        answer.header_mut().set_tc(true);
        return Some(answer.finish());
    }
    let owner: Name<Vec<u8>> = name.parse().unwrap();
    for _ in 0..count {
        let address = A::from_octets(192, 0, 2, 7);
        answer.push((owner.clone(), Ttl::HOUR, address)).unwrap();
    }
    Some(answer.finish())
}

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    let name: Name<Vec<u8>> = name.parse().unwrap();
    builder.push((name, Rtype::A)).unwrap();
    builder.finish()
}

async fn send(stream: &mut (impl tokio::io::AsyncWrite + Unpin), message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    stream
        .write_all(&[&length, message].concat())
        .await
        .unwrap();
}

async fn receive(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    timeout(DEADLINE, stream.read_exact(&mut length)).await??;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    timeout(DEADLINE, stream.read_exact(&mut message)).await??;
    Ok(message)
}

async fn ask(connection: &mut Connection, message: &[u8]) -> Message<Vec<u8>> {
    send(connection, message).await;
    Message::from_octets(receive(connection).await.unwrap()).unwrap()
}

#[tokio::test]
async fn dns_questions_over_tls_are_answered_by_the_resolver_behind() {
    let resolver = resolver().await.to_string();
    let ca = Running::start(&["--dns-listen", "127.0.0.1:0", "--dns-upstream", &resolver]);
    let dns = ca.announced("DNS over TLS");
    let mut connection = connect(&dns, &ca.root_pem(), &["dot"]).await.unwrap();
    assert_eq!(connection.get_ref().1.alpn_protocol(), Some(&b"dot"[..]));

    let answer = ask(&mut connection, &question(7, "one.example")).await;
    assert_eq!(
        (answer.header().id(), answer.header().rcode()),
        (7, Rcode::NOERROR)
    );
    let mut records = answer.answer().unwrap().limit_to::<A>();
    let address = records.next().unwrap().unwrap().data().addr();
    assert_eq!(IpAddr::V4(address), "192.0.2.7".parse::<IpAddr>().unwrap());

    // What does not fit into a datagram comes over TCP.
    let answer = ask(&mut connection, &question(8, "many.example")).await;
    assert_eq!(answer.header_counts().ancount(), 1000);
    assert!(!answer.header().tc());

    // A question that nobody answers holds up no other, and is answered in the end.
    send(&mut connection, &question(9, "silent.example")).await;
    assert_eq!(
        ask(&mut connection, &question(10, "one.example"))
            .await
            .header()
            .id(),
        10
    );
    let failed = Message::from_octets(receive(&mut connection).await.unwrap()).unwrap();
    assert_eq!(
        (failed.header().id(), failed.header().rcode()),
        (9, Rcode::SERVFAIL)
    );

    let mut junk = question(11, "one.example");
    junk.truncate(20);
    let refused = ask(&mut connection, &junk).await;
    assert_eq!(
        (refused.header().id(), refused.header().rcode()),
        (11, Rcode::FORMERR)
    );

    // What is no question at all ends the connection, and only this one.
    send(&mut connection, b"junk").await;
    let end = receive(&mut connection).await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    let mut other = connect(&dns, &ca.root_pem(), &[]).await.unwrap();
    assert_eq!(
        ask(&mut other, &question(12, "one.example"))
            .await
            .header()
            .id(),
        12
    );
    assert!(connect(&dns, &ca.root_pem(), &["h2"]).await.is_err());

    // Without its question answered, a client does not keep the server.
    assert!(ca.signal("TERM").0.success());
}

#[test]
fn the_names_in_a_namespace_are_those_of_istiod() {
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().to_str().unwrap();
    let flags = ["--serving-certs-dir", written, "--namespace", "mesh"];
    let ca = Running::start(&[&flags[..], &["--revision", "canary"]].concat());
    let read = |path: &Path| std::fs::read(path).unwrap();
    let chain = CertificateChain::from_pem(&read(&folder.path().join("grpc/cert-chain.pem")));
    let chain = chain.unwrap();
    assert_eq!(chain.leaf().subject_der(), b"\x30\x00", "no common name");
    let names: Vec<String> = chain
        .leaf()
        .names()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        names,
        [
            "istio-pilot.mesh.svc",
            "istiod-canary.mesh.svc",
            "istiod-remote.mesh.svc",
            "istiod.istio-system.svc",
            "istiod.mesh.svc",
        ]
    );
    let roots = read(&folder.path().join("grpc/root-cert.pem"));
    assert_eq!(String::from_utf8(roots).unwrap(), ca.root_pem());
}
