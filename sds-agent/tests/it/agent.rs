//! A running agent, and how a test looks at it from outside.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ca_core::{CertificateChain, PrivateKey, SigningKey as _, TrustBundle, testing::now};
use ca_proto::{
    SECRET_TYPE_URL,
    envoy::{
        config::core::v3::{DataSource, Node, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{Secret, secret::Type},
        service::{
            discovery::v3::{
                DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
                Resource,
            },
            secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
        },
    },
};
use clap::Parser as _;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use sds_agent::{App, AppError, Args, Config, Stop};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::ca::Ca;

/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for `future`, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long: {what}"),
    }
}

/// A folder with what an agent needs to find.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new(ca: &Ca) -> Self {
        Self::with(&ca.roots, "good-token\n")
    }

    pub(crate) fn with(roots: &TrustBundle, token: &str) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        fs::write(home.path("root-cert.pem"), roots.to_pem()).unwrap();
        home.write_token(token);
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write_token(&self, token: &str) {
        fs::write(self.path("token"), token).unwrap();
    }

    /// Flags for an agent that lives here.
    pub(crate) fn flags(&self, ca: &Ca, more: &[&str]) -> Vec<String> {
        let mut flags = vec!["--ca-addr".to_owned(), format!("https://{}", ca.address)];
        flags.extend(self.flags_without_ca());
        flags.extend(more.iter().map(ToString::to_string));
        flags
    }

    /// All flags but for those that say where the CA is.
    fn flags_without_ca(&self) -> Vec<String> {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        [
            ("--ca-root", text(self.path("root-cert.pem"))),
            ("--token-file", text(self.path("token"))),
            ("--namespace", "shop".to_owned()),
            ("--service-account", "cart".to_owned()),
            ("--socket", text(self.path("run/socket"))),
            ("--admin-listen", "127.0.0.1:0".to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }
}

/// An agent in this process.
pub(crate) struct Agent {
    pub(crate) home: Home,
    pub(crate) admin: SocketAddr,
    renew_now: Arc<Notify>,
    stop: Stop,
    running: JoinHandle<Result<(), AppError>>,
}

impl Agent {
    pub(crate) fn start(ca: &Ca, more: &[&str]) -> Self {
        Self::start_in(Home::new(ca), ca, more)
    }

    pub(crate) fn start_in(home: Home, ca: &Ca, more: &[&str]) -> Self {
        let app = build(&home, ca, more).unwrap();
        Self::run(home, app)
    }

    /// With these flags, which say where the CA is.
    pub(crate) fn start_with(home: Home, flags: &[&str]) -> Self {
        let mut all = home.flags_without_ca();
        all.extend(flags.iter().map(ToString::to_string));
        Self::start_with_only(home, all)
    }

    /// With these flags and no others.
    pub(crate) fn start_with_only(home: Home, flags: Vec<String>) -> Self {
        let app = build_from(flags).unwrap();
        Self::run(home, app)
    }

    /// With these flags in the place of the usual ones of the same names.
    pub(crate) fn start_replacing(home: Home, ca: &Ca, more: &[&str]) -> Self {
        let mut flags = home.flags(ca, &[]);
        for flag in more.chunks(2) {
            if let Some(at) = flags.iter().position(|usual| usual == flag[0]) {
                flags.drain(at..at + 2);
            }
        }
        flags.extend(more.iter().map(ToString::to_string));
        let app = build_from(flags).unwrap();
        Self::run(home, app)
    }

    fn run(home: Home, app: App) -> Self {
        let (admin, stop) = (app.admin_address(), Stop::new());
        let renew_now = app.renew_now();
        let running = tokio::spawn(app.run(stop.clone()));
        Self {
            home,
            admin,
            renew_now,
            stop,
            running,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path("run/socket")
    }

    pub(crate) fn renew(&self) {
        self.renew_now.notify_one();
    }

    /// Waits until a metric has this value.
    pub(crate) async fn counts(&self, metric: &str, value: &str) {
        let line = format!("{metric} {value}");
        self.becomes("/metrics", |_, body| {
            body.lines().any(|found| found == line)
        })
        .await;
    }

    pub(crate) async fn stop(self) -> Home {
        self.stop.cancel();
        soon("the agent stops", self.running)
            .await
            .unwrap()
            .unwrap();
        self.home
    }

    /// Status and body of an admin page.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        soon("the admin server answers", get(self.admin, path))
            .await
            .unwrap()
    }

    /// Waits until an admin page is as wanted.
    pub(crate) async fn becomes(&self, path: &str, wanted: impl Fn(u16, &str) -> bool) -> String {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        let polling = async {
            loop {
                ticks.tick().await;
                let (status, body) = self.get(path).await;
                if wanted(status, &body) {
                    return body;
                }
            }
        };
        soon(path, polling).await
    }

    pub(crate) async fn client(&self) -> SecretDiscoveryServiceClient<Channel> {
        client(self.socket()).await.unwrap()
    }

    /// Opens a stream and asks for `names`.
    pub(crate) async fn subscribe(&self, names: &[&str]) -> Stream {
        Stream::open(&mut self.client().await, names).await
    }

    /// Opens an incremental stream and sends this on it, as the first request.
    pub(crate) async fn delta(&self, first: DeltaDiscoveryRequest) -> DeltaStream {
        let (requests, receiver) = mpsc::channel(8);
        let first = DeltaDiscoveryRequest {
            node: Some(node()),
            type_url: SECRET_TYPE_URL.to_owned(),
            ..first
        };
        requests.send(first).await.unwrap();
        let mut client = self.client().await;
        let streaming = client.delta_secrets(ReceiverStream::new(receiver));
        let responses = soon("the stream opens", streaming)
            .await
            .unwrap()
            .into_inner();
        DeltaStream {
            requests,
            responses,
        }
    }
}

impl Stream {
    /// Opens a stream on the client's connection and asks for `names`.
    pub(crate) async fn open(
        client: &mut SecretDiscoveryServiceClient<Channel>,
        names: &[&str],
    ) -> Self {
        let first = DiscoveryRequest {
            node: Some(node()),
            ..request(names)
        };
        Self::open_with(client, first).await
    }

    /// Opens a stream with this as its first request.
    pub(crate) async fn open_with(
        client: &mut SecretDiscoveryServiceClient<Channel>,
        first: DiscoveryRequest,
    ) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        let names = first.resource_names.clone();
        requests.send(first).await.unwrap();
        let streaming = client.stream_secrets(ReceiverStream::new(receiver));
        let responses = soon("the stream opens", streaming)
            .await
            .unwrap()
            .into_inner();
        Self {
            names,
            requests,
            responses,
        }
    }
}

pub(crate) fn build(home: &Home, ca: &Ca, more: &[&str]) -> Result<App, AppError> {
    build_from(home.flags(ca, more))
}

fn build_from(flags: Vec<String>) -> Result<App, AppError> {
    let args = ["sds-agent".to_owned()].into_iter().chain(flags);
    App::build(Config::try_from(Args::try_parse_from(args).unwrap()).unwrap())
}

pub(crate) async fn client(
    socket: PathBuf,
) -> Result<SecretDiscoveryServiceClient<Channel>, tonic::transport::Error> {
    Ok(SecretDiscoveryServiceClient::new(channel(socket).await?))
}

/// A connection to a Unix socket.
pub(crate) async fn channel(socket: PathBuf) -> Result<Channel, tonic::transport::Error> {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let endpoint = Endpoint::from_static("http://agent.local");
    endpoint.connect_with_connector(connector).await
}

/// Envoy's side of one stream.
pub(crate) struct Stream {
    names: Vec<String>,
    pub(crate) requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Stream {
    /// The next response, or how the stream ended.
    pub(crate) async fn next(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        soon("a response", self.responses.message()).await
    }

    /// The next response, accepted.
    pub(crate) async fn accept(&mut self) -> Vec<Secret> {
        let response = self.next().await.unwrap().expect("the stream ended");
        self.say_yes_to(&response).await;
        secrets(&response)
    }

    pub(crate) async fn say_yes_to(&self, response: &DiscoveryResponse) {
        assert_eq!(response.type_url, SECRET_TYPE_URL);
        let request = DiscoveryRequest {
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: self.names.clone(),
            ..request(&[])
        };
        self.requests.send(request).await.unwrap();
    }

    /// Whether nothing has arrived that was not taken.
    pub(crate) async fn is_silent(&mut self) -> bool {
        // One round trip on the same runtime: whatever was on its way has arrived.
        tokio::time::timeout(Duration::from_millis(50), self.responses.message())
            .await
            .is_err()
    }
}

/// Envoy's side of one incremental stream.
pub(crate) struct DeltaStream {
    pub(crate) requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl DeltaStream {
    /// The next response, accepted.
    pub(crate) async fn accept(&mut self) -> DeltaDiscoveryResponse {
        let message = soon("a response", self.responses.message()).await;
        let response = message.unwrap().expect("the stream ended");
        let request = DeltaDiscoveryRequest {
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
        response
    }

    /// Whether nothing has arrived that was not taken.
    pub(crate) async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.responses.message())
            .await
            .is_err()
    }
}

pub(crate) fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

/// The secrets of an incremental response, each known to be what its name says.
pub(crate) fn delta_secrets(response: &DeltaDiscoveryResponse) -> Vec<Secret> {
    let unpack = |resource: &Resource| {
        let any = resource.resource.as_ref().unwrap();
        let secret = Secret::decode(any.value.as_slice()).unwrap();
        assert_eq!(secret.name, resource.name);
        secret
    };
    response.resources.iter().map(unpack).collect()
}

pub(crate) fn request(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(ToString::to_string).collect(),
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    }
}

pub(crate) fn node() -> Node {
    Node {
        id: "sidecar~127.0.0.1~cart.shop~local".to_owned(),
        ..Node::default()
    }
}

pub(crate) fn secrets(response: &DiscoveryResponse) -> Vec<Secret> {
    response
        .resources
        .iter()
        .map(|any| Secret::decode(any.value.as_slice()).unwrap())
        .collect()
}

/// The chain of a `default` secret, after everything that a peer would check.
pub(crate) fn checked_chain(secret: &Secret, roots: &TrustBundle) -> CertificateChain {
    assert_eq!(secret.name, "default");
    pair_in(secret, roots)
}

/// The same for any secret that holds a pair of the workload.
pub(crate) fn pair_in(secret: &Secret, roots: &TrustBundle) -> CertificateChain {
    let Some(Type::TlsCertificate(pair)) = &secret.r#type else {
        panic!("no key pair")
    };
    let chain = CertificateChain::from_pem(bytes(pair.certificate_chain.as_ref())).unwrap();
    let key = PrivateKey::from_pem(bytes(pair.private_key.as_ref())).unwrap();
    check(&chain, &key, roots);
    chain
}

/// The roots of a `ROOTCA` secret.
pub(crate) fn checked_roots(secret: &Secret) -> TrustBundle {
    assert_eq!(secret.name, "ROOTCA");
    TrustBundle::from_pem(roots_in(secret)).unwrap()
}

/// The text of a secret that holds roots.
pub(crate) fn roots_in(secret: &Secret) -> &[u8] {
    let Some(Type::ValidationContext(context)) = &secret.r#type else {
        panic!("no roots")
    };
    bytes(context.trusted_ca.as_ref())
}

/// Key, name, dates and path, at this moment.
pub(crate) fn check(chain: &CertificateChain, key: &PrivateKey, roots: &TrustBundle) {
    assert_eq!(chain.leaf().public_key(), key.public_key());
    let ids: Vec<_> = chain.leaf().spiffe_ids().map(ToString::to_string).collect();
    assert_eq!(ids, ["spiffe://cluster.local/ns/shop/sa/cart"]);
    chain.verify(roots, now()).unwrap();
}

fn bytes(source: Option<&DataSource>) -> &[u8] {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => bytes,
        other => panic!("not inline: {other:?}"),
    }
}

pub(crate) fn read(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap()
}

async fn get(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok((status, body.to_owned()))
}
