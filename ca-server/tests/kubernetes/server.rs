//! The program in the cluster, as far as it can tell.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use ca_core::{KeyKind, PrivateKey, create_csr_pem};
use ca_proto::istio::v1::auth::IstioCertificateRequest;
use ca_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tempfile::TempDir;
use tonic::metadata::AsciiMetadataKey;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::deadline::{DEADLINE, eventually};
use crate::running;

/// A `ca-server` on free ports, ended when the test is.
pub(crate) struct Server {
    child: Child,
    pub(crate) serving: String,
    pub(crate) admin: String,
    namespace: String,
    announced: Vec<String>,
    log: Arc<Mutex<String>>,
    _folder: TempDir,
}

impl Server {
    /// One that has announced itself. It is not said that it is ready: see [`Server::until_ready`].
    pub(crate) async fn start(kubeconfig: &Path, namespace: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Self::spawn(kubeconfig, namespace, flags, folder.path());
        let log = collect(&mut child);
        // Not here: a signer that the server waits for may be a task of this test.
        let (child, lines) = tokio::task::spawn_blocking(move || {
            let lines = running::announcement(&mut child, DEADLINE);
            (child, lines)
        })
        .await
        .unwrap();
        let mut server = Self {
            child,
            serving: String::new(),
            admin: String::new(),
            namespace: namespace.into(),
            announced: lines.unwrap_or_default(),
            log,
            _folder: folder,
        };
        server.serving = server.announced("serving");
        server.admin = server.announced("admin");
        server
    }

    /// The bare process, for a start that ends otherwise. **Standard output and error are pipes that somebody has to read.**
    pub(crate) fn spawn(
        kubeconfig: &Path,
        namespace: &str,
        flags: &[&str],
        folder: &Path,
    ) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ca-server"));
        for listener in ["--listen", "--admin-listen"] {
            if !flags.contains(&listener) {
                command.args([listener, "127.0.0.1:0"]);
            }
        }
        command
            .env("POD_NAMESPACE", namespace)
            .args(["--kubernetes", "--kubeconfig"])
            .arg(kubeconfig)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// What stands behind `key` in the announcement.
    pub(crate) fn announced(&self, key: &str) -> String {
        let value = self
            .announced
            .iter()
            .find_map(|line| line.strip_prefix(key));
        let Some(value) = value else {
            panic!(
                "no `{key}` in {:?}; it said:\n{}",
                self.announced,
                self.log()
            );
        };
        value.trim().to_owned()
    }

    /// What it has said on standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The roots that it gives to agents on its machine.
    pub(crate) fn root_pem(&self) -> String {
        std::fs::read_to_string(self.announced("root certificate")).unwrap()
    }

    /// One page of the admin listener: status code and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.ask_admin("GET", path)
    }

    /// The same by another method.
    pub(crate) fn ask_admin(&self, method: &str, path: &str) -> (u16, String) {
        let text = ask(&self.admin, method, path).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, body.to_owned())
    }

    pub(crate) fn metrics(&self) -> String {
        self.get("/metrics").1
    }

    /// The sum over all labels; 0 for a metric that is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let metrics = self.metrics();
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
        lines
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    pub(crate) async fn until_ready(&self) {
        let attempt = async || match self.get("/readyz") {
            (200, _) => Ok(()),
            (code, body) => Err(format!("{code} {body}\n{}", self.log())),
        };
        eventually("readiness", attempt).await;
    }

    /// Waits for a line of the log that contains this.
    pub(crate) async fn until_logged(&self, text: &str) {
        let attempt = async || {
            let log = self.log();
            if log.contains(text) { Ok(()) } else { Err(log) }
        };
        eventually(text, attempt).await;
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        running::send_signal(&self.child, name);
    }

    /// A connection, for many requests.
    pub(crate) async fn connect(&self) -> Channel {
        self.connect_by(&self.root_pem()).await
    }

    /// The same where the server's certificate leads to another root.
    pub(crate) async fn connect_by(&self, root_pem: &str) -> Channel {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(root_pem))
            .domain_name(format!("istiod.{}.svc", self.namespace));
        let endpoint = Endpoint::from_shared(format!("https://{}", self.serving)).unwrap();
        let endpoint = endpoint.tls_config(tls).unwrap();
        let endpoint = endpoint.timeout(DEADLINE).connect_timeout(DEADLINE);
        endpoint.connect().await.unwrap()
    }

    /// The elements of the reply: the chain, and the roots in the last one.
    pub(crate) async fn sign(&self, ask: Ask<'_>) -> Result<Vec<String>, Status> {
        ask.send(self.connect().await).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The whole answer of an admin listener, which may not be there yet.
pub(crate) fn ask(admin: &str, method: &str, path: &str) -> Result<String, String> {
    let connected = TcpStream::connect(admin);
    let mut stream = connected.map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    Ok(text)
}

/// A request for a certificate.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    token: &'a str,
    csr: String,
    seconds: i64,
    headers: Vec<(&'a str, &'a str)>,
    metadata: BTreeMap<String, Value>,
}

impl<'a> Ask<'a> {
    /// With a CSR of a fresh key that names nobody.
    pub(crate) fn new(token: &'a str) -> Self {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        Self {
            token,
            csr: create_csr_pem(&key, &[]).unwrap(),
            seconds: 3600,
            headers: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }

    pub(crate) fn csr(mut self, pem: &str) -> Self {
        self.csr = pem.into();
        self
    }

    /// A CSR of a fresh key that names these, as stock agents send it.
    pub(crate) fn naming(self, names: &[&str]) -> Self {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let names: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
        let pem = create_csr_pem(&key, &names).unwrap();
        self.csr(&pem)
    }

    pub(crate) fn seconds(mut self, seconds: i64) -> Self {
        self.seconds = seconds;
        self
    }

    /// A gRPC header, such as `clusterid`.
    pub(crate) fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A field of the request's metadata: `ImpersonatedIdentity`, `CertSigner`.
    pub(crate) fn metadata(mut self, key: &str, value: &str) -> Self {
        let kind = Some(Kind::StringValue(value.into()));
        self.metadata.insert(key.into(), Value { kind });
        self
    }

    pub(crate) async fn send(self, channel: Channel) -> Result<Vec<String>, Status> {
        let metadata = (!self.metadata.is_empty()).then_some(Struct {
            fields: self.metadata,
        });
        let mut request = Request::new(IstioCertificateRequest {
            csr: self.csr,
            validity_duration: self.seconds,
            metadata,
        });
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", &bearer[..])];
        for (name, value) in headers.into_iter().chain(self.headers) {
            let name: AsciiMetadataKey = name.parse().unwrap();
            request.metadata_mut().append(name, value.parse().unwrap());
        }
        let mut client = IstioCertificateServiceClient::new(channel);
        Ok(client
            .create_certificate(request)
            .await?
            .into_inner()
            .cert_chain)
    }
}

/// Reads the log to its end: a server whose log nobody reads comes to a halt when the pipe is full.
fn collect(child: &mut Child) -> Arc<Mutex<String>> {
    let log = Arc::new(Mutex::new(String::new()));
    let (mut pipe, sink) = (child.stderr.take().unwrap(), Arc::clone(&log));
    // Ends with the program.
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]);
            sink.lock().unwrap().push_str(&text);
        }
    });
    log
}
