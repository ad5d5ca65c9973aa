//! The way to whoever is asked: TCP, TLS, and as much HTTP/1.1 as one question needs.

mod address;
mod exchange;
mod json;

use std::{fs, io, sync::Arc};

use ca_core::{TrustBundle, TrustError};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) use address::{ServerAddress, ServerAddressError};
pub(crate) use exchange::{Answer, ask, ask_in_the_clear, is_passing};
pub(crate) use json::JsonFault;
pub(crate) use json::{json, one_line, take_token, text};

use crate::{config::CaRoots, roots_file};

/// Somebody to be reached over TLS, and how they are known.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) address: ServerAddress,
    /// What their certificate must say.
    pub(crate) name: ServerName<'static>,
    /// What it must lead to.
    pub(crate) roots: CaRoots,
}

/// A chain and its key, as TLS wants them.
pub(crate) type ClientKeyPair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Server {
    /// Reads the roots and builds what a handshake needs. The roots are read now, so that a new root
    /// file needs no restart.
    ///
    /// # Errors
    ///
    /// When the roots or the key pair cannot be used.
    pub(crate) fn tls(
        &self,
        client: Option<ClientKeyPair>,
        protocol: &[u8],
    ) -> Result<ClientConfig, TransportError> {
        let roots = read_roots(&self.roots)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        #[expect(
            clippy::expect_used,
            reason = "ring has cipher suites for both versions"
        )]
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring serves TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let mut tls = match client {
            None => tls.with_no_client_auth(),
            Some((chain, key)) => tls
                .with_client_auth_cert(chain, key)
                .map_err(TransportError::ClientCertificate)?,
        };
        tls.alpn_protocols = vec![protocol.to_vec()];
        Ok(tls)
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// When nobody is there, or not the one who was meant.
    pub(crate) async fn connect(
        &self,
        tls: ClientConfig,
    ) -> Result<TlsStream<TcpStream>, TransportError> {
        let tcp = connect(self.address.host(), self.address.port()).await?;
        TlsConnector::from(Arc::new(tls))
            .connect(self.name.clone(), tcp)
            .await
            .map_err(|source| TransportError::Tls {
                address: self.address.to_string(),
                source,
            })
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, TransportError> {
    let tcp = TcpStream::connect((host, port)).await;
    let tcp = tcp.map_err(|source| TransportError::Connect {
        address: format!("{host}:{port}"),
        source,
    })?;
    // One small request: do not wait for more to send.
    let _ = tcp.set_nodelay(true);
    Ok(tcp)
}

fn read_roots(source: &CaRoots) -> Result<RootCertStore, TransportError> {
    let path = match source {
        CaRoots::File(path) => path.clone(),
        CaRoots::System => roots_file::of_the_system(),
    };
    let shown = || path.display().to_string();
    let text = fs::read(&path).map_err(|source| TransportError::RootFile {
        path: shown(),
        source,
    })?;
    let unusable = |source| TransportError::Roots {
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

/// Why there was no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// We do not know whom to trust.
    #[error("cannot read the CA's roots from {path}")]
    RootFile {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// We do not know whom to trust.
    #[error("the CA's roots in {path} are not certificates")]
    Roots {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: TrustError,
    },
    /// What we have to show cannot be shown.
    #[error("the client certificate cannot be used")]
    ClientCertificate(#[source] rustls::Error),
    /// Nobody is there.
    #[error("cannot connect to {address}")]
    Connect {
        /// Who should be there.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody is there, but not the one that we trust, or without our protocol.
    #[error("cannot set up TLS with {address}")]
    Tls {
        /// Who should be there.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The connection is unusable.
    #[error("cannot speak HTTP with {address}")]
    Http {
        /// Who should be there.
        address: String,
        /// Why not.
        #[source]
        source: hyper::Error,
    },
    /// A body without end, or one that breaks off.
    #[error("the answer of {address} breaks off or is longer than {limit} bytes")]
    Body {
        /// Who was asked.
        address: String,
        /// What is read at most.
        limit: usize,
    },
}

impl TransportError {
    /// Whether it may well be over in a moment.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Http { .. } | Self::Body { .. }
        )
    }
}
