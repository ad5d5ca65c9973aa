//! One connection to the CA: TCP, TLS, HTTP/2.

use std::{
    fs, io,
    sync::Arc,
    task::{Context, Poll},
};

use ca_core::BoxFuture;
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
use crate::config::IstioCaConfig;

/// A connection, closed when dropped. It is also the service that generated clients work over.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    driver: AbortHandle,
}

impl Connection {
    /// Connects. The roots are read now, so that a new root file needs no restart.
    pub(super) async fn open(config: &IstioCaConfig) -> Result<Self, CaError> {
        let tls = client_tls(config)?;
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
pub(super) fn client_tls(config: &IstioCaConfig) -> Result<ClientConfig, CaError> {
    let path = || config.root_file.display().to_string();
    let text = fs::read(&config.root_file).map_err(|source| CaError::RootFile {
        path: path(),
        source,
    })?;
    let bundle = ca_core::TrustBundle::from_pem(&text).map_err(|source| CaError::Roots {
        path: path(),
        source,
    })?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(
        bundle
            .certificates()
            .iter()
            .map(|root| CertificateDer::from(root.der())),
    );
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    #[expect(
        clippy::expect_used,
        reason = "ring has cipher suites for both versions"
    )]
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring serves TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}
