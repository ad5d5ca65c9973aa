//! A real CA on a real socket, which can be told to misbehave.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use ca_core::{
    Certificate, Csr, DnsName, IssuedChain, KeyKind, PrivateKey, SubjectName, TrustBundle,
    create_csr_pem,
    testing::{TestCa, now},
};
use ca_proto::istio::v1::auth::{
    IstioCertificateRequest, IstioCertificateResponse,
    istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_types::value::Kind;
use rustls::{
    RootCertStore,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{Request, Response, Status, codegen::Service as _, metadata::KeyAndValueRef};

/// What the CA does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Certifies the workload for as long as this, whatever was asked for.
    Good { lifetime: Duration },
    /// Certifies a key of its own.
    OtherKey,
    /// Certifies somebody else.
    OtherIdentity,
    /// Sends a certificate that is over.
    Expired,
    /// Sends roots that have nothing to do with the certificate.
    OtherRoots,
    /// Sends the certificate alone.
    NoRoots,
    /// Sends something else.
    Garbage,
    /// Says no.
    Refuse(Status),
}

/// What a request looked like when it arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Who the client certificate was for, if one was shown.
    pub(crate) certificate: Option<String>,
    /// All headers, by name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) authorization: String,
    pub(crate) cluster: String,
    pub(crate) timeout: String,
    pub(crate) validity: i64,
    pub(crate) metadata: Option<BTreeMap<String, String>>,
}

/// The CA. It serves while it is switched on.
pub(crate) struct Ca {
    pub(crate) roots: TrustBundle,
    pub(crate) address: SocketAddr,
    service: Signer,
    acceptor: TlsAcceptor,
    serving: Option<JoinHandle<()>>,
    /// Keeps the port for us while nobody listens on it, so that connections are refused.
    _reserved: TcpSocket,
}

impl Ca {
    /// Bound to a port, but not serving yet.
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        let ca = TestCa::new("cluster.local");
        let reserved = socket("127.0.0.1:0".parse().unwrap());
        let (seen, _) = watch::channel(Vec::new());
        Self {
            roots: ca.roots(),
            address: reserved.local_addr().unwrap(),
            _reserved: reserved,
            acceptor: acceptor(&ca),
            service: Signer {
                ca: Arc::new(Mutex::new(ca)),
                behaviour: Arc::new(Mutex::new(behaviour)),
                seen,
                no_tokens: watch::Sender::new(false),
            },
            serving: None,
        }
    }

    pub(crate) fn good() -> Self {
        let mut ca = Self::new(Behaviour::Good {
            lifetime: Duration::from_secs(3600),
        });
        ca.switch_on();
        ca
    }

    pub(crate) fn switch_on(&mut self) {
        let listener = socket(self.address).listen(16).unwrap();
        let (acceptor, service) = (self.acceptor.clone(), self.service.clone());
        self.serving = Some(tokio::spawn(serve(listener, acceptor, service)));
    }

    pub(crate) async fn switch_off(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.service.behaviour.lock().unwrap() = behaviour;
    }

    /// Takes no tokens from now on.
    pub(crate) fn take_certificates_only(&self) {
        self.service.no_tokens.send_replace(true);
    }

    /// The CA's hand, for what it should have signed at another time.
    pub(crate) fn hand(&self) -> TestCa {
        self.service.ca.lock().unwrap().clone()
    }

    /// Issues under another root from now on. Gives that root. The server's own certificate stays.
    pub(crate) fn move_to_another_root(&self) -> TrustBundle {
        self.move_to(TestCa::new("cluster.local"))
    }

    /// The same, to this one.
    pub(crate) fn move_to(&self, ca: TestCa) -> TrustBundle {
        let roots = ca.roots();
        *self.service.ca.lock().unwrap() = ca;
        roots
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.service.seen.borrow().clone()
    }

    /// Waits until the CA has been asked `more` times from now on.
    pub(crate) async fn asked(&self, more: usize) {
        let mut seen = self.service.seen.subscribe();
        let wanted = seen.borrow_and_update().len() + more;
        seen.wait_for(|seen| seen.len() >= wanted).await.unwrap();
    }
}

impl Drop for Ca {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

#[derive(Clone)]
struct Signer {
    ca: Arc<Mutex<TestCa>>,
    behaviour: Arc<Mutex<Behaviour>>,
    seen: watch::Sender<Vec<Seen>>,
    /// Whether only certificates count.
    no_tokens: watch::Sender<bool>,
}

/// Whom a connection's client certificate is for.
#[derive(Clone)]
struct Peer(Option<String>);

impl Signer {
    fn answer(&self, csr: &str) -> Result<Vec<String>, Status> {
        let hour = Duration::from_secs(3600);
        let csr = Csr::from_pem(csr.as_bytes())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let ca = self.ca.lock().unwrap().clone();
        let cart = SubjectName::from(ca.id("shop", "cart"));
        let issue = |csr, name, lifetime| ca.issue(csr, &[name], lifetime, now());
        let behaviour = self.behaviour.lock().unwrap().clone();
        Ok(match behaviour {
            Behaviour::Good { lifetime } => elements(&issue(&csr, cart, lifetime)),
            Behaviour::OtherKey => {
                let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
                let other = create_csr_pem(&key, std::slice::from_ref(&cart)).unwrap();
                elements(&issue(
                    &Csr::from_pem(other.as_bytes()).unwrap(),
                    cart,
                    hour,
                ))
            }
            Behaviour::OtherIdentity => elements(&issue(&csr, ca.id("shop", "admin").into(), hour)),
            Behaviour::Expired => {
                let past = now() - Duration::from_secs(100);
                elements(&ca.issue(&csr, &[cart], Duration::from_secs(60), past))
            }
            Behaviour::OtherRoots => {
                let issued = issue(&csr, cart, hour);
                let roots = TestCa::new("cluster.local").roots();
                elements(&IssuedChain::new(issued.chain().clone(), roots))
            }
            Behaviour::NoRoots => vec![issue(&csr, cart, hour).chain().leaf().to_pem().to_owned()],
            Behaviour::Garbage => vec!["not".to_owned(), "certificates".to_owned()],
            Behaviour::Refuse(status) => return Err(status),
        })
    }
}

fn elements(issued: &IssuedChain) -> Vec<String> {
    let chain = issued
        .chain()
        .iter()
        .map(|certificate| certificate.to_pem().to_owned());
    chain.chain([issued.roots().to_pem().to_owned()]).collect()
}

#[tonic::async_trait]
impl IstioCertificateService for Signer {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let header = |name: &str| {
            let value = request
                .metadata()
                .get(name)
                .and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let ascii = request.metadata().iter().filter_map(|entry| match entry {
            KeyAndValueRef::Ascii(name, value) => {
                Some((name.to_string(), value.to_str().ok()?.to_owned()))
            }
            KeyAndValueRef::Binary(..) => None,
        });
        let seen = Seen {
            certificate: request.extensions().get::<Peer>().unwrap().0.clone(),
            headers: ascii.collect(),
            authorization: header("authorization"),
            cluster: header("clusterid"),
            timeout: header("grpc-timeout"),
            validity: request.get_ref().validity_duration,
            metadata: request.get_ref().metadata.clone().map(|metadata| {
                let text = |kind| match kind {
                    Some(Kind::StringValue(text)) => text,
                    other => panic!("{other:?}"),
                };
                metadata
                    .fields
                    .into_iter()
                    .map(|(key, value)| (key, text(value.kind)))
                    .collect()
            }),
        };
        let by_token = seen.authorization == "Bearer good-token" && !*self.no_tokens.borrow();
        let trusted = by_token || seen.certificate.is_some();
        self.seen.send_modify(|all| all.push(seen));
        if !trusted {
            return Err(Status::unauthenticated("request authenticate failure"));
        }
        let cert_chain = self.answer(&request.get_ref().csr)?;
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, service: Signer) {
    let service = IstioCertificateServiceServer::new(service);
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, service) = (acceptor.clone(), service.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let peer = Peer(client_name(&stream));
            let answer = service_fn(move |mut request: http::Request<_>| {
                request.extensions_mut().insert(peer.clone());
                service.clone().call(request)
            });
            let http = http2::Builder::new(TokioExecutor::new());
            let _ = http.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn client_name(stream: &TlsStream<TcpStream>) -> Option<String> {
    let der = stream.get_ref().1.peer_certificates()?.first()?.to_vec();
    let certificate = Certificate::from_der(der).unwrap();
    certificate.spiffe_ids().next().map(ToString::to_string)
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

fn acceptor(ca: &TestCa) -> TlsAcceptor {
    let names = [
        SubjectName::Dns("localhost".parse::<DnsName>().unwrap()),
        SubjectName::Ip("127.0.0.1".parse().unwrap()),
    ];
    let (key, chain) = ca.identity(&names, Duration::from_secs(3600), now());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificates = chain
        .iter()
        .map(|certificate| certificate.der().to_vec().into())
        .collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));
    let mut roots = RootCertStore::empty();
    roots
        .add(ca.roots().certificates()[0].der().to_vec().into())
        .unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(tls))
}
