//! A stand-in for a CA: real TLS and real gRPC, scripted answers.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;

use ca_core::testing::{TestCa, now};
use ca_core::{CaRequest, CertificateChain, PrivateKey, SigningKey as _, create_csr_pem};
use ca_proto::istio::v1::auth::IstioCertificateResponse;
use ca_proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status};

use super::*;
use crate::returned::ReturnedError;

/// What the stand-in does with the next request.
enum Next {
    Fail(Code),
    /// An ordinary certificate for this name, whatever was wished.
    Leaf(&'static str),
    /// The certificate of a CA.
    Authority,
    Elements(Vec<String>),
    /// Nothing, for ever.
    Silence,
}

struct StandIn {
    ca: TestCa,
    script: Mutex<VecDeque<Next>>,
    seen: Mutex<Vec<Seen>>,
}

#[derive(Clone, Debug)]
struct Seen {
    authorization: String,
    metadata: Option<Struct>,
    seconds: i64,
    has_deadline: bool,
}

#[tonic::async_trait]
impl IstioCertificateService for StandIn {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let header = |name: &str| {
            let value = request.metadata().get(name);
            value
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let seen = Seen {
            authorization: header("authorization"),
            has_deadline: !header("grpc-timeout").is_empty(),
            metadata: request.get_ref().metadata.clone(),
            seconds: request.get_ref().validity_duration,
        };
        self.seen.lock().unwrap().push(seen);
        let next = self.script.lock().unwrap().pop_front();
        let csr = Csr::from_pem(request.get_ref().csr.as_bytes()).unwrap();
        let hour = Duration::from_secs(3600);
        let issued = match next.expect("more requests than answers") {
            Next::Fail(code) => return Err(Status::new(code, "scripted")),
            Next::Silence => std::future::pending().await,
            Next::Elements(cert_chain) => {
                return Ok(Response::new(IstioCertificateResponse { cert_chain }));
            }
            Next::Leaf(name) => self.ca.issue(&csr, &[name.parse().unwrap()], hour, now()),
            Next::Authority => {
                let request = CaRequest::new(csr, "cluster.local", "edge", hour);
                self.ca.authority().issue_ca(&request, now()).unwrap()
            }
        };
        let chain = issued.chain().iter().map(ca_core::Certificate::to_pem);
        let cert_chain = chain.chain([issued.roots().to_pem()]).map(str::to_owned);
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: cert_chain.collect(),
        }))
    }
}

impl StandIn {
    /// Serves on a free port of loopback under a certificate of `serving`.
    async fn start(serving: &TestCa, script: Vec<Next>) -> (Arc<Self>, UpstreamAddress) {
        let name = "127.0.0.1".parse().unwrap();
        let (key, chain) = serving.identity(&[name], Duration::from_secs(3600), now());
        Self::start_showing(&key, &chain, script).await
    }

    async fn start_showing(
        key: &PrivateKey,
        chain: &CertificateChain,
        script: Vec<Next>,
    ) -> (Arc<Self>, UpstreamAddress) {
        let stand_in = Arc::new(Self {
            ca: TestCa::new("cluster.local"),
            script: Mutex::new(script.into()),
            seen: Mutex::default(),
        });
        let ders = chain.iter().map(|c| CertificateDer::from(c.der().to_vec()));
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));
        let mut tls = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(ders.collect(), key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let (connections, incoming) = tokio::sync::mpsc::channel(8);
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let accepted = acceptor.accept(socket).await;
                if accepted.is_ok() && connections.send(accepted).await.is_err() {
                    return;
                }
            }
        });
        let service = IstioCertificateServiceServer::from_arc(Arc::clone(&stand_in));
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
        (stand_in, address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn client(folder: &Path, address: UpstreamAddress, roots: &TestCa) -> IstioUpstream {
    std::fs::write(folder.join("root-cert.pem"), roots.root_pem()).unwrap();
    std::fs::write(folder.join("token"), "one\n").unwrap();
    let config = UpstreamConfig {
        address,
        roots: folder.join("root-cert.pem"),
        credential: UpstreamCredential::Token(folder.join("token")),
    };
    IstioUpstream::new(config, provider()).unwrap()
}

fn csr(names: &[&str]) -> Csr {
    let key = PrivateKey::generate(Default::default()).unwrap();
    let names: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
    Csr::from_pem(create_csr_pem(&key, &names).unwrap().as_bytes()).unwrap()
}

fn request(signer: Option<&str>) -> SigningRequest {
    let names = vec![CART.parse().unwrap()];
    SigningRequest::new(csr(&[CART]), names, Duration::from_secs(3600))
        .with_signer(signer.map(str::to_owned))
}

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

#[tokio::test]
async fn a_workload_gets_what_was_asked_for_and_each_call_shows_the_token_of_the_moment() {
    let (folder, serving) = (tempfile::tempdir().unwrap(), TestCa::new("serving"));
    let script = vec![Next::Leaf(CART), Next::Leaf(CART)];
    let (stand_in, address) = StandIn::start(&serving, script).await;
    let upstream = client(folder.path(), address, &serving);

    let issued = upstream.sign(request(None), now()).await.unwrap();
    assert_eq!(issued.chain().leaf().names(), [CART.parse().unwrap()]);
    std::fs::write(folder.path().join("token"), " two ").unwrap();
    upstream.sign(request(Some("blue")), now()).await.unwrap();

    let seen = stand_in.seen();
    assert_eq!(seen[0].authorization, "Bearer one");
    assert_eq!(seen[1].authorization, "Bearer two");
    assert_eq!((seen[0].seconds, seen[0].has_deadline), (3600, true));
    // Whose it is to be is said besides: the CA knows us by another name.
    let said = |at: usize, key: &str| {
        let value = seen[at].metadata.as_ref()?.fields.get(key)?;
        value.kind.clone()
    };
    for at in [0, 1] {
        let name = Some(Kind::StringValue(CART.into()));
        assert_eq!(said(at, "ImpersonatedIdentity"), name);
    }
    assert_eq!(said(0, "CertSigner"), None);
    assert_eq!(
        said(1, "CertSigner"),
        Some(Kind::StringValue("blue".into()))
    );
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_released_and_what_was_not_granted_is_not_sent() {
    let (folder, serving) = (tempfile::tempdir().unwrap(), TestCa::new("serving"));
    let (_, other) = TestCa::new("other").workload("shop", "cart");
    let for_another_key = vec![
        other.leaf().to_pem().into(),
        TestCa::new("other").root_pem(),
    ];
    let script = vec![
        Next::Leaf("spiffe://cluster.local/ns/shop/sa/other"),
        Next::Authority,
        Next::Elements(for_another_key),
        Next::Elements(vec!["junk".into()]),
    ];
    let (stand_in, address) = StandIn::start(&serving, script).await;
    let upstream = client(folder.path(), address, &serving);
    for reason in [
        "ns/shop/sa/other",
        "where spiffe://cluster.local/ns/shop/sa/cart was asked for",
        "another key",
        "1 elements",
    ] {
        let error = upstream.sign(request(None), now()).await.unwrap_err();
        assert!(matches!(error, SignError::BadAnswer(_)), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    let names = vec![CART.parse().unwrap()];
    let more = SigningRequest::new(csr(&[CART, "extra"]), names, Duration::from_secs(60));
    let error = upstream.sign(more, now()).await.unwrap_err();
    assert!(matches!(error, SignError::Refused(_)), "{error}");
    assert_eq!(stand_in.seen().len(), 4, "it was never sent");
}

#[tokio::test]
async fn a_ca_is_wished_for_in_so_many_words_and_an_ordinary_certificate_is_no_answer() {
    let (folder, serving) = (tempfile::tempdir().unwrap(), TestCa::new("serving"));
    let script = vec![Next::Authority, Next::Leaf(CART), Next::Leaf(CART)];
    let (stand_in, address) = StandIn::start(&serving, script).await;
    let upstream = client(folder.path(), address, &serving);
    let (csr, hour) = (csr(&[]), Duration::from_secs(3600));

    let issued = upstream.certify_authority(&csr, hour, now()).await.unwrap();
    assert!(issued.chain().leaf().is_ca());
    assert_eq!(issued.roots(), &stand_in.ca.roots());
    let error = upstream.certify_authority(&csr, hour, now()).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, UpstreamError::Returned(ReturnedError::NotCa)),
        "{error}"
    );
    let look = upstream.look(&csr, hour, now()).await.unwrap();
    assert_eq!(look.roots(), &stand_in.ca.roots());

    let wishes: Vec<_> = stand_in
        .seen()
        .into_iter()
        .map(|seen| seen.metadata)
        .collect();
    let wish = &wishes[0].as_ref().unwrap().fields["CertificateAuthority"];
    assert_eq!(wish.kind, Some(Kind::BoolValue(true)));
    assert_eq!(wishes[2], None);
}

/// Each kind of refusal has a server of its own, so that they wait at the same time.
#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_will_not_is_told_at_once() {
    let mut all = tokio::task::JoinSet::new();
    for (code, tries) in [
        (Code::Cancelled, 5),
        (Code::DeadlineExceeded, 5),
        (Code::ResourceExhausted, 5),
        (Code::Aborted, 5),
        (Code::Internal, 5),
        (Code::Unavailable, 5),
        (Code::Unauthenticated, 1),
        (Code::PermissionDenied, 1),
        (Code::InvalidArgument, 1),
        (Code::Unimplemented, 1),
    ] {
        all.spawn(async move {
            let (folder, serving) = (tempfile::tempdir().unwrap(), TestCa::new("serving"));
            let script = (0..tries).map(|_| Next::Fail(code)).collect();
            let (stand_in, address) = StandIn::start(&serving, script).await;
            let upstream =
                client(folder.path(), address, &serving).with_deadline(Duration::from_secs(60));
            let error = upstream.sign(request(None), now()).await.unwrap_err();
            assert_eq!(stand_in.seen().len(), tries, "{code:?}");
            let is_ours = matches!(error, SignError::Refused(_));
            assert_eq!(is_ours, code == Code::InvalidArgument, "{error}");
            assert_eq!(error.is_retryable(), !is_ours, "{error}");
        });
    }
    while let Some(finished) = all.join_next().await {
        finished.unwrap();
    }
    let (folder, serving) = (tempfile::tempdir().unwrap(), TestCa::new("serving"));
    let script = vec![Next::Fail(Code::Unavailable), Next::Leaf(CART)];
    let (_, address) = StandIn::start(&serving, script).await;
    let upstream = client(folder.path(), address, &serving);
    upstream.sign(request(None), now()).await.unwrap();
}

#[tokio::test]
async fn silence_costs_the_deadline_and_the_next_call_starts_afresh() {
    let (folder, serving) = (tempfile::tempdir().unwrap(), TestCa::new("serving"));
    let script = vec![Next::Silence, Next::Leaf(CART)];
    let (_, address) = StandIn::start(&serving, script).await;
    let upstream = client(folder.path(), address, &serving).with_deadline(Duration::from_secs(1));
    let started = Instant::now();
    let error = upstream.sign(request(None), now()).await.unwrap_err();
    assert!(error.to_string().ends_with("within 1 s"), "{error}");
    assert!(started.elapsed() >= Duration::from_secs(1));
    let patient = upstream.with_deadline(Duration::from_secs(60));
    patient.sign(request(None), now()).await.unwrap();
}

#[tokio::test]
async fn nobody_there_and_the_wrong_one_there_are_told_and_new_roots_are_followed() {
    let (folder, serving) = (tempfile::tempdir().unwrap(), TestCa::new("serving"));
    let (_, address) = StandIn::start(&serving, vec![Next::Leaf(CART)]).await;
    let other = TestCa::new("other");
    let upstream = client(folder.path(), address, &other).with_deadline(Duration::from_secs(5));
    let error = upstream.sign(request(None), now()).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");

    let mut changes = upstream.connections.followed();
    std::fs::write(folder.path().join("root-cert.pem"), serving.root_pem()).unwrap();
    tokio::time::timeout(Duration::from_secs(30), changes.changed())
        .await
        .unwrap();
    upstream.sign(request(None), now()).await.unwrap();

    let nobody = client(folder.path(), "127.0.0.1:1".parse().unwrap(), &serving)
        .with_deadline(Duration::from_secs(2));
    let error = nobody.sign(request(None), now()).await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_retryable(), "{text}");
    assert_eq!(text.matches("refused").count(), 1, "{text}");
    assert!(!text.contains("transport error"), "{text}");

    std::fs::write(folder.path().join("root-cert.pem"), "junk").unwrap();
    let config = UpstreamConfig {
        address: "127.0.0.1:1".parse().unwrap(),
        roots: folder.path().join("root-cert.pem"),
        credential: UpstreamCredential::Token(folder.path().join("token")),
    };
    let error = IstioUpstream::new(config, provider())
        .unwrap_err()
        .to_string();
    assert!(error.contains("root-cert.pem: not PEM"), "{error}");
}

/// What `openssl req -x509` makes, and what many put on their first server.
#[tokio::test]
async fn a_server_that_shows_the_certificate_of_a_ca_is_told_so_in_words() {
    let (folder, serving) = (tempfile::tempdir().unwrap(), TestCa::new("serving"));
    let chain = serving.state().chain().clone();
    let (_, address) = StandIn::start_showing(serving.key(), &chain, Vec::new()).await;
    let upstream = client(folder.path(), address, &serving).with_deadline(Duration::from_secs(2));
    let error = upstream.sign(request(None), now()).await.unwrap_err();
    let text = error.to_string();
    let words = "the server shows the certificate of a CA as its own";
    assert!(
        text.contains(words) && !text.contains("EndEntity"),
        "{text}"
    );
}

#[tokio::test]
async fn a_key_of_another_certificate_is_told_at_the_start() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), TestCa::new("serving"));
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (key, chain) = ca.workload("mesh", "edge-ca");
    let config = |key: &PrivateKey| UpstreamConfig {
        address: "127.0.0.1:1".parse().unwrap(),
        roots: write("root-cert.pem", &ca.root_pem()),
        credential: UpstreamCredential::Certificate {
            chain: write("cert-chain.pem", &chain.to_pem()),
            key: write("key.pem", &key.to_pkcs8_pem()),
        },
    };
    IstioUpstream::new(config(&key), provider()).unwrap();
    let error = IstioUpstream::new(config(ca.key()), provider()).unwrap_err();
    assert!(error.to_string().contains("key does not belong"), "{error}");
    assert_ne!(ca.key().public_key(), key.public_key());
}
