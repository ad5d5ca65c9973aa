//! The CA that is asked: where it is, and by which roots it is known.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use ca_core::TrustBundle;
use http::Uri;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpSocket, TcpStream};

use super::args::TargetArgs;
use super::failure::Failure;

/// Where to connect, and what to say and to expect there.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) server_name: ServerName<'static>,
    pub(crate) method: Uri,
    /// How many connections have been made, when each comes from another address.
    spread: Option<Arc<AtomicU32>>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl Target {
    pub(crate) fn new(args: &TargetArgs) -> Result<Self> {
        let address = resolve(&args.address)?;
        let name = args.server_name.as_str();
        let method = format!("https://{name}/{METHOD}");
        Ok(Self {
            address,
            server_name: ServerName::try_from(name.to_owned())
                .with_context(|| format!("not a name of a server: {name}"))?,
            method: method.parse().context("not a name of a server")?,
            spread: args.spread.then(Arc::default),
            roots: Arc::new(read_roots(&args.ca_root)?),
            provider: Arc::new(provider(args.hybrid)),
        })
    }

    /// TCP.
    pub(crate) async fn connect(&self) -> Result<TcpStream, Failure> {
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let connect = async {
            let socket = socket?;
            if let Some(count) = &self.spread {
                // 127.1.0.0/16: as many clients as a node has pods, and as many ports for each.
                let [.., high, low] = count.fetch_add(1, Ordering::Relaxed).to_be_bytes();
                socket.bind((Ipv4Addr::new(127, 1, high, low), 0).into())?;
            }
            let tcp = socket.connect(self.address).await?;
            tcp.set_nodelay(true)?;
            io::Result::Ok(tcp)
        };
        connect.await.map_err(|_| Failure::Connect)
    }

    /// TLS as a client speaks it, with a certificate to show or without. Nothing is resumed: a new connection is a new
    /// handshake, as it is for an agent that has just started.
    pub(crate) fn tls(&self, identity: Option<Identity<'_>>) -> Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.chain_pem)
                    .collect::<Result<Vec<_>, _>>()
                    .context("the client's certificate cannot be read")?;
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem)
                    .context("the client's key cannot be read")?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// What a client shows in the handshake.
#[derive(Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) chain_pem: &'a [u8],
    pub(crate) key_pem: &'a [u8],
}

fn resolve(text: &str) -> Result<SocketAddr> {
    use std::net::ToSocketAddrs as _;
    text.to_socket_addrs()
        .with_context(|| format!("not an address: {text}"))?
        .next()
        .with_context(|| format!("{text} has no address"))
}

fn read_roots(path: &Path) -> Result<RootCertStore> {
    let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bundle = TrustBundle::from_pem(&pem).with_context(|| path.display().to_string())?;
    let mut roots = RootCertStore::empty();
    for root in bundle.certificates() {
        roots.add(CertificateDer::from(root.der().to_vec()))?;
    }
    Ok(roots)
}

/// Without `hybrid` only X25519, which every CA has: the post-quantum share costs both ends about a tenth of a handshake.
fn provider(hybrid: bool) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    if hybrid {
        let group = aws_lc_rs::kx_group::X25519MLKEM768;
        provider.kx_groups.insert(0, group);
    }
    provider
}

const METHOD: &str = "istio.v1.auth.IstioCertificateService/CreateCertificate";
