//! A server of JSON over real TLS (or in the clear), which says what a test tells it to say.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ca_core::{
    Csr, DnsName, SubjectName, TrustBundle,
    testing::{TestCa, now},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Status and body.
pub(crate) type Reply = (u16, Value);

type Handler = Arc<dyn Fn(&Call) -> Reply + Send + Sync>;

/// The server, which ends with this.
pub(crate) struct Rest {
    pub(crate) address: SocketAddr,
    seen: watch::Sender<Vec<Call>>,
    serving: JoinHandle<()>,
}

impl Rest {
    /// Over TLS, with a certificate of `ca`.
    pub(crate) async fn over_tls(
        ca: &TestCa,
        handler: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(acceptor(ca)), Arc::new(handler)).await
    }

    /// As a metadata server does it.
    pub(crate) async fn in_the_clear(
        handler: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(None, Arc::new(handler)).await
    }

    async fn start(tls: Option<TlsAcceptor>, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = watch::Sender::new(Vec::new());
        let calls = seen.clone();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, handler, calls) = (tls.clone(), Arc::clone(&handler), calls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, handler, calls).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, handler, calls).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            seen,
            serving,
        }
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Call> {
        self.seen.borrow().clone()
    }

    /// The paths of all requests so far, without queries.
    pub(crate) fn paths(&self) -> Vec<String> {
        let path = |call: Call| call.path.split('?').next().unwrap_or_default().to_owned();
        self.seen().into_iter().map(path).collect()
    }

    /// Waits for a request that is wanted.
    pub(crate) async fn saw(&self, wanted: impl Fn(&Call) -> bool) {
        self.saw_times(1, wanted).await;
    }

    /// Waits for so many of them.
    pub(crate) async fn saw_times(&self, times: usize, wanted: impl Fn(&Call) -> bool) {
        let mut seen = self.seen.subscribe();
        let enough = |calls: &Vec<Call>| calls.iter().filter(|call| wanted(call)).count() >= times;
        let requests = crate::agent::soon("requests", seen.wait_for(enough));
        requests.await.unwrap();
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    handler: Handler,
    calls: watch::Sender<Vec<Call>>,
) {
    let answer = service_fn(move |request: http::Request<Incoming>| {
        let (handler, calls) = (Arc::clone(&handler), calls.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let call = Call {
                method: head.method.to_string(),
                path: head.uri.to_string(),
                headers: head.headers,
                body: String::from_utf8_lossy(&body).into_owned(),
            };
            let (status, json) = handler(&call);
            calls.send_modify(|all| all.push(call));
            let answer = http::Response::builder()
                .status(status)
                .header("metadata-flavor", "Google")
                .body(Full::<bytes::Bytes>::from(json.to_string()));
            Ok::<_, hyper::Error>(answer.unwrap())
        }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

/// The certificate for a CSR, with the names that `cart` has: leaf and roots, as PEM.
pub(crate) fn certify(ca: &TestCa, csr: &str, lifetime: Duration) -> (String, TrustBundle) {
    let csr = Csr::from_pem(csr.as_bytes()).unwrap();
    let cart = SubjectName::from(ca.id("shop", "cart"));
    let issued = ca.issue(&csr, &[cart], lifetime, now());
    (
        issued.chain().leaf().to_pem().to_owned(),
        issued.roots().clone(),
    )
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
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(tls))
}
