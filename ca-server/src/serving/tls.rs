//! TLS as it is to be spoken now.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ca_core::TrustBundle;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use super::certificate::ServingCertificate;
use super::handshakes::Handshakes;

mod policy;

pub use policy::TlsPolicyError;
pub(crate) use policy::{Compliance, MinVersion, TlsPolicy};

/// The configuration for the next handshake: each connection takes it once, so certificate and client roots change
/// together and without a restart.
#[derive(Clone, Debug)]
pub(crate) struct CurrentTls {
    config: Arc<ArcSwap<ServerConfig>>,
    handshakes: Handshakes,
}

impl CurrentTls {
    pub(super) fn new(config: ServerConfig, handshakes: Handshakes) -> Self {
        Self {
            config: Arc::new(ArcSwap::from_pointee(config)),
            handshakes,
        }
    }

    pub(super) fn get(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    pub(super) fn set(&self, config: ServerConfig) {
        self.config.store(Arc::new(config));
    }

    /// Where those that fail are counted.
    pub(super) fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }
}

/// What one listener speaks, whatever its certificate is.
#[derive(Clone, Debug)]
pub(super) struct Dialect {
    pub(super) policy: TlsPolicy,
    /// By ALPN; the first that the client has too.
    pub(super) protocols: &'static [&'static [u8]],
}

impl Dialect {
    /// Shows `certificate`, and verifies certificates of clients with `client_roots` where they are given. Without a
    /// certificate every handshake is refused.
    pub(super) fn with(
        &self,
        certificate: Option<&ServingCertificate>,
        client_roots: Option<&TrustBundle>,
    ) -> Result<ServerConfig, TlsError> {
        let provider = self.policy.provider();
        let verifier = match client_roots {
            None => Arc::new(NoClientAuth) as Arc<dyn ClientCertVerifier>,
            Some(roots) => client_verifier(&self.policy, roots)?,
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(self.policy.versions())?
            .with_client_cert_verifier(verifier);
        let mut config = match certificate {
            None => builder.with_cert_resolver(Arc::new(NoCertificate)),
            Some(ServingCertificate { key, chain, .. }) => {
                let chain = chain.iter().map(|c| CertificateDer::from(c.der().to_vec()));
                let key = PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec());
                builder.with_single_cert(chain.collect(), PrivateKeyDer::Pkcs8(key))?
            }
        };
        config.alpn_protocols = self.protocols.iter().map(|name| name.to_vec()).collect();
        config.ignore_client_order = true;
        // Nothing is resumed: each connection is judged by the roots of its own time, and no handshake pays for tickets.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }
}

/// Judges certificates of clients.
pub(super) fn client_verifier(
    policy: &TlsPolicy,
    roots: &TrustBundle,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots.certificates() {
        store.add(CertificateDer::from(root.der().to_vec()))?;
    }
    let provider = Arc::clone(policy.provider());
    // Without a certificate a caller still has its token.
    Ok(
        WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
            .allow_unauthenticated()
            .build()?,
    )
}

/// The listener is there, and says that it has nothing to show.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
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
