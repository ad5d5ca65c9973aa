//! One connection to the CA: TCP, TLS, HTTP/2.

use std::{
    fs, io,
    sync::Arc,
    task::{Context, Poll},
};

use ca_core::{BoxFuture, TrustBundle, TrustError};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use tokio::{net::TcpStream, task::AbortHandle};
use tokio_rustls::TlsConnector;
use tonic::{body::Body, codegen::Service};

use super::CaError;
use crate::{
    config::{CaRoots, IstioCaConfig},
    credential::ClientCertificate,
    roots_file,
};

/// A connection, closed when dropped. It is also the service that generated clients work over.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    driver: AbortHandle,
}

impl Connection {
    /// Connects, and shows `certificate` if there is one. The roots are read now, so that a new root
    /// file needs no restart.
    pub(super) async fn open(
        config: &IstioCaConfig,
        certificate: Option<ClientCertificate>,
    ) -> Result<Self, CaError> {
        let tls = client_tls(config, certificate)?;
        let address = || config.address.to_string();
        let target = (config.address.host(), config.address.port());
        let tcp = TcpStream::connect(target)
            .await
            .map_err(|source| CaError::Connect {
                address: address(),
                source,
            })?;
        // One small request: do not wait for more to send.
        let _ = tcp.set_nodelay(true);
        let tls = TlsConnector::from(Arc::new(tls))
            .connect(config.server_name.clone(), tcp)
            .await
            .map_err(|source| CaError::Tls {
                address: address(),
                source,
            })?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            let source = io::Error::other("the server does not offer HTTP/2");
            return Err(CaError::Tls {
                address: address(),
                source,
            });
        }
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .map_err(|source| CaError::Http {
                address: address(),
                source,
            })?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the CA broke");
            }
        });
        Ok(Self {
            sender,
            driver: driver.abort_handle(),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A peer that has gone silent would hold a polite goodbye for minutes.
        self.driver.abort();
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

/// Reads the roots and builds what a handshake needs.
pub(super) fn client_tls(
    config: &IstioCaConfig,
    certificate: Option<ClientCertificate>,
) -> Result<ClientConfig, CaError> {
    let roots = read_roots(&config.roots)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    #[expect(
        clippy::expect_used,
        reason = "ring has cipher suites for both versions"
    )]
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring serves TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let mut tls = match certificate.map(ClientCertificate::into_der) {
        None => tls.with_no_client_auth(),
        Some((chain, key)) => tls
            .with_client_auth_cert(chain, key)
            .map_err(CaError::ClientCertificate)?,
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

fn read_roots(source: &CaRoots) -> Result<RootCertStore, CaError> {
    let path = match source {
        CaRoots::File(path) => path.clone(),
        CaRoots::System => roots_file::of_the_system(),
    };
    let shown = || path.display().to_string();
    let text = fs::read(&path).map_err(|source| CaError::RootFile {
        path: shown(),
        source,
    })?;
    let unusable = |source| CaError::Roots {
        path: shown(),
        source,
    };
    let certificates = match source {
        // A file that was written for this purpose has no excuse.
        CaRoots::File(_) => {
            let bundle = TrustBundle::from_pem(&text).map_err(unusable)?;
            bundle.certificates().to_vec()
        }
        CaRoots::System => roots_file::readable(&text).0,
    };
    if certificates.is_empty() {
        return Err(unusable(TrustError::Empty));
    }
    let mut roots = RootCertStore::empty();
    let ders = certificates
        .iter()
        .map(|root| CertificateDer::from(root.der()));
    roots.add_parsable_certificates(ders);
    Ok(roots)
}
