//! The connection to the CA: TCP, TLS, HTTP/2, and the files it depends on.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ca_core::files::{FileSet, FollowOptions, FollowedFiles, Snapshot};
use ca_core::{BoxFuture, CertificateChain, PrivateKey, SigningKey as _, TrustBundle};
use hyper_util::rt::TokioIo;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};

use super::address::UpstreamAddress;
use super::credential::{self, TokenError};
use super::error::UpstreamError;

/// Where the CA is, whom to trust there, and what to show.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Who is asked.
    pub address: UpstreamAddress,
    /// A file with the roots (PEM) that the CA's own certificate must lead to; followed.
    pub roots: PathBuf,
    /// What is shown.
    pub credential: UpstreamCredential,
}

/// What is shown to the CA.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum UpstreamCredential {
    /// The token in this file, read at each use.
    Token(PathBuf),
    /// A client certificate, followed.
    Certificate {
        /// The chain, leaf first, as PEM.
        chain: PathBuf,
        /// Its key, as PEM.
        key: PathBuf,
    },
}

/// The one connection, made when it is needed, and anew when the files have changed.
#[derive(Debug)]
pub(super) struct Connections {
    address: UpstreamAddress,
    origin: Uri,
    token: Option<PathBuf>,
    tls: FollowedFiles<ClientConfig>,
    /// With the generation of the files that it was made from. Locked for a look, never across a wait.
    current: Mutex<Option<(u64, Channel)>>,
}

impl Connections {
    pub(super) fn new(
        config: UpstreamConfig,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, UpstreamError> {
        let UpstreamConfig {
            address,
            roots,
            credential,
        } = config;
        let (token, certificate) = match credential {
            UpstreamCredential::Token(path) => (Some(path), None),
            UpstreamCredential::Certificate { chain, key } => (None, Some((chain, key))),
        };
        let mut files = FileSet::new().required(&roots);
        if let Some((chain, key)) = &certificate {
            files = files.required(chain).required(key);
        }
        let parse = move |files: &Snapshot, _: Option<&ClientConfig>| {
            client_tls(files, &roots, certificate.as_ref(), &provider)
        };
        let tls = FollowedFiles::start(files, FollowOptions::new(), parse)
            .map_err(UpstreamError::Files)?;
        let origin = Uri::try_from(format!("https://{address}")).unwrap_or_default();
        Ok(Self {
            address,
            origin,
            token,
            tls,
            current: Mutex::new(None),
        })
    }

    pub(super) fn address(&self) -> &UpstreamAddress {
        &self.address
    }

    /// What requests name as their target.
    pub(super) fn origin(&self) -> Uri {
        self.origin.clone()
    }

    pub(super) fn bearer(&self) -> Result<Option<MetadataValue<Ascii>>, TokenError> {
        self.token.as_deref().map(credential::bearer).transpose()
    }

    /// The connection to use. It connects at its first use, and again after it broke.
    pub(super) fn channel(&self) -> Channel {
        // Read before the files: a change in between makes one connection too many, and none that is old.
        let generation = self.tls.generation();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some((made_from, channel)) if *made_from == generation => channel.clone(),
            _ => {
                let channel = self.connect();
                *current = Some((generation, channel.clone()));
                channel
            }
        }
    }

    /// The next use connects anew.
    pub(super) fn forget(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    #[cfg(test)]
    pub(super) fn followed(&self) -> ca_core::files::Subscription<ClientConfig> {
        self.tls.subscribe()
    }

    fn connect(&self) -> Channel {
        let connector = Connector {
            address: self.address.clone(),
            tls: TlsConnector::from(self.tls.current()),
        };
        // TLS is ours, because the library's cannot change; the real origin goes with each request.
        Endpoint::from_static("http://upstream")
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .connect_with_connector_lazy(connector)
    }
}

/// Opens one TLS connection with HTTP/2 in it.
struct Connector {
    address: UpstreamAddress,
    tls: TlsConnector,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (address, tls) = (self.address.clone(), self.tls.clone());
        Box::pin(async move {
            let tcp = TcpStream::connect(address.target()).await?;
            // Small requests: do not wait for more to send.
            let _ = tcp.set_nodelay(true);
            let connected = tls.connect(address.name(), tcp).await;
            let stream = connected.map_err(in_plain_words)?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err(io::Error::other("the server does not offer HTTP/2"));
            }
            Ok(TokioIo::new(stream))
        })
    }
}

/// The library has a word of its own for what an ordinary `openssl req -x509` makes: a certificate that may sign others.
fn in_plain_words(error: io::Error) -> io::Error {
    let tls = error.get_ref().and_then(|cause| cause.downcast_ref());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(cause)))
            if cause.to_string() == "CaUsedAsEndEntity" =>
        {
            io::Error::new(error.kind(), CA_AS_ITS_OWN)
        }
        _ => error,
    }
}

fn client_tls(
    files: &Snapshot,
    roots: &PathBuf,
    certificate: Option<&(PathBuf, PathBuf)>,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, Box<dyn Error + Send + Sync>> {
    let at = |path: &PathBuf, error: &dyn Error| format!("{}: {error}", path.display());
    let trusted = TrustBundle::from_pem(files.require(roots)?).map_err(|e| at(roots, &e))?;
    let mut store = RootCertStore::empty();
    for root in trusted.certificates() {
        store.add(CertificateDer::from(root.der().to_vec()))?;
    }
    let tls = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store);
    let mut tls = match certificate {
        None => tls.with_no_client_auth(),
        Some((chain_path, key_path)) => {
            let chain = CertificateChain::from_pem(files.require(chain_path)?)
                .map_err(|e| at(chain_path, &e))?;
            let key =
                PrivateKey::from_pem(files.require(key_path)?).map_err(|e| at(key_path, &e))?;
            if chain.leaf().public_key() != key.public_key() {
                let text = "the key does not belong to the certificate";
                return Err(format!("{}: {text}", key_path.display()).into());
            }
            let ders = chain.iter().map(|c| CertificateDer::from(c.der().to_vec()));
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));
            tls.with_client_auth_cert(ders.collect(), key)?
        }
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

const CA_AS_ITS_OWN: &str =
    "the server shows the certificate of a CA as its own: it needs one with CA:FALSE";
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
