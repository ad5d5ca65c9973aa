//! TLS as it is to be spoken now.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ca_core::{CertificateChain, PrivateKey, TrustBundle};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CipherSuite, RootCertStore, ServerConfig};

/// The configuration for the next handshake: each connection takes it once, so certificate and client roots change
/// together and without a restart.
#[derive(Clone, Debug)]
pub(crate) struct CurrentTls(Arc<ArcSwap<ServerConfig>>);

impl CurrentTls {
    pub(crate) fn new(config: ServerConfig) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    pub(crate) fn get(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }

    pub(crate) fn set(&self, config: ServerConfig) {
        self.0.store(Arc::new(config));
    }
}

/// Serves `chain`, and verifies client certificates against `roots` where they are given.
pub(crate) fn server_config(
    key: &PrivateKey,
    chain: &CertificateChain,
    roots: &TrustBundle,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider());
    let mut store = RootCertStore::empty();
    for root in roots.certificates() {
        store.add(CertificateDer::from(root.der().to_vec()))?;
    }
    // Without a certificate a caller still has its token.
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
    let chain = chain
        .iter()
        .map(|c| CertificateDer::from(c.der().to_vec()))
        .collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.ignore_client_order = true;
    Ok(config)
}

/// AES-128 with SHA-256 first: the key schedule of the suite with SHA-384 runs without hardware support and costs each
/// new connection 5 % more.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate, the key or the protocol versions do not suit.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// The client roots do not suit.
    #[error(transparent)]
    Roots(#[from] VerifierBuilderError),
}
