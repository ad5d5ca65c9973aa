//! A server that does nothing but what a certificate cannot do without, on the same libraries: TLS, HTTP/2, one verification
//! and one signature, and a reply that was made before. It reads no request and knows nobody.

use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use ca_core::{
    BundleStore, CertificateChain, KeyCertBundle, KeyKind, LocalAuthority, PrivateKey, RootParams,
    TrustBundle,
};
use ca_proto::istio::v1::auth::IstioCertificateResponse;
use h2::server::{Connection, SendResponse};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CipherSuite, RootCertStore, ServerConfig};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::framed;
use super::run::{issuance_floor, runtime};
use crate::Floor;
use crate::material::{NAME, TRUST_DOMAIN};

/// Until it is killed. Where it serves is printed as `ca-server` does it.
pub(crate) fn run(folder: &Path) -> Result<()> {
    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: certificates are dated now"
    )]
    let now = OffsetDateTime::now_utc();
    let material = Material::make(now)?;
    material.write_for_clients(folder)?;
    let tls = TlsAcceptor::from(Arc::new(material.tls()?));
    let bare = Rc::new(Bare {
        floor: issuance_floor()?,
        reply: material.reply(),
    });
    LocalSet::new().block_on(&runtime()?, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("serving            {}", listener.local_addr()?);
        loop {
            let (socket, _) = listener.accept().await.context("cannot accept")?;
            socket.set_nodelay(true)?;
            let (tls, bare) = (tls.clone(), Rc::clone(&bare));
            spawn_local(async move {
                // A client that fails has been told, or has gone.
                let _ = serve(tls, socket, bare).await;
            });
        }
    })
}

struct Bare {
    floor: Floor,
    reply: Bytes,
}

async fn serve(tls: TlsAcceptor, socket: TcpStream, bare: Rc<Bare>) -> Result<()> {
    let stream = tls.accept(socket).await?;
    let mut connection: Connection<TlsStream<TcpStream>, Bytes> =
        h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        let bare = Rc::clone(&bare);
        spawn_local(async move {
            let _ = bare.answer(request, respond).await;
        });
    }
    Ok(())
}

impl Bare {
    async fn answer(
        &self,
        request: Request<h2::RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Result<()> {
        let mut body = request.into_body();
        while let Some(data) = body.data().await {
            let count = data?.len();
            body.flow_control().release_capacity(count)?;
        }
        anyhow::ensure!(self.floor.verify_and_sign(), "the floor does not hold");
        let head = Response::builder().header(CONTENT_TYPE, "application/grpc");
        let mut stream = respond.send_response(head.body(())?, false)?;
        stream.send_data(self.reply.clone(), false)?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        stream.send_trailers(trailers)?;
        Ok(())
    }
}

/// A root, and certificates of a server and of a client below it.
struct Material {
    roots: TrustBundle,
    server: (PrivateKey, CertificateChain),
    client: (PrivateKey, CertificateChain),
}

impl Material {
    fn make(now: OffsetDateTime) -> Result<Self> {
        let key = PrivateKey::generate(KeyKind::EcdsaP256)?;
        let root = RootParams::new(TRUST_DOMAIN, LIFETIME).self_sign(&key, now)?;
        let roots = TrustBundle::new([root.clone()])?;
        let chain = CertificateChain::new(root, Vec::new());
        let bundle = KeyCertBundle::new(Arc::new(key), chain, roots.clone(), now)?;
        let authority = LocalAuthority::new(BundleStore::new(bundle));
        let certified = |name: &str| -> Result<_> {
            let (key, issued) = authority.issue_with_new_key(vec![name.parse()?], LIFETIME, now)?;
            Ok((key, issued.chain().clone()))
        };
        Ok(Self {
            server: certified("localhost")?,
            client: certified(NAME)?,
            roots,
        })
    }

    fn write_for_clients(&self, folder: &Path) -> Result<()> {
        let (key, chain) = &self.client;
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(folder.join("root-cert.pem"), self.roots.to_pem()))
            .and_then(|()| fs::write(folder.join("client-cert.pem"), chain.to_pem()))
            .and_then(|()| fs::write(folder.join("client-key.pem"), key.to_pkcs8_pem().as_bytes()))
            .with_context(|| format!("cannot write into {}", folder.display()))
    }

    /// What `ca-server` speaks.
    fn tls(&self) -> Result<ServerConfig> {
        let mut provider = aws_lc_rs::default_provider();
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let provider = Arc::new(provider);
        let mut roots = RootCertStore::empty();
        for root in self.roots.certificates() {
            roots.add(CertificateDer::from(root.der().to_vec()))?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()?;
        let (key, chain) = &self.server;
        let chain = chain.iter().map(|c| CertificateDer::from(c.der().to_vec()));
        let key = PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.collect(), PrivateKeyDer::Pkcs8(key))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.ignore_client_order = true;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    /// As long as a real one.
    fn reply(&self) -> Bytes {
        let (_, chain) = &self.client;
        let cert_chain = vec![
            chain.leaf().to_pem().to_owned(),
            self.roots.to_pem().to_owned(),
        ];
        framed(&IstioCertificateResponse { cert_chain }.encode_to_vec())
    }
}

const LIFETIME: Duration = Duration::from_secs(24 * 3600);
