//! Mutual TLS between SPIFFE identities, as a mesh does it: the chain must lead to the mesh's roots
//! and the only name that counts is the URI in the subject alternative name.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion,
    RootCertStore, ServerConfig, ServerConnection, SignatureScheme, Stream,
};

use crate::identity::{Identity, Leaf};

const TIMEOUT: Duration = Duration::from_secs(5);
const GREETING: &[u8; 5] = b"hello";

/// What a finished handshake says of the other side.
pub(crate) struct Peer {
    pub(crate) leaf: Leaf,
    pub(crate) version: ProtocolVersion,
}

/// Connects as this identity to a server that must be exactly that one, says something and returns
/// once there is an answer.
pub(crate) fn connect(
    address: SocketAddr,
    own: &Identity,
    server: &str,
    say: &[u8],
) -> Result<Peer> {
    let own_key = SingleCertAndKey::from(Arc::clone(&own.certified_key));
    let config = client_config(own, server)?.with_client_cert_resolver(Arc::new(own_key));
    finish_client(address, config, say)
}

/// Connects without a certificate: what a server that requires one must refuse.
pub(crate) fn connect_without_certificate(
    address: SocketAddr,
    own: &Identity,
    server: &str,
    say: &[u8],
) -> Result<Peer> {
    finish_client(
        address,
        client_config(own, server)?.with_no_client_auth(),
        say,
    )
}

/// A whole handshake over a loopback connection. Gives what the client saw and what the server saw.
pub(crate) fn handshake(
    client: &Identity,
    client_id: &str,
    server: &Identity,
    server_id: &str,
) -> Result<(Peer, Peer)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on the loopback")?;
    let address = listener
        .local_addr()
        .context("cannot listen on the loopback")?;
    std::thread::scope(|scope| {
        let accepting = scope.spawn(|| accept(&listener, server, client_id));
        let seen_by_client = connect(address, client, server_id, GREETING);
        let seen_by_server = match accepting.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        // The server's reason first: the client often sees only that the connection was closed.
        let seen_by_server = seen_by_server.context("the server refused")?;
        Ok((
            seen_by_client.context("the client refused")?,
            seen_by_server,
        ))
    })
}

fn accept(listener: &TcpListener, own: &Identity, client: &str) -> Result<Peer> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::clone(&own.roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("cannot choose TLS versions")?
        .with_client_cert_verifier(verifier.build().context("cannot use the roots")?)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(
            &own.certified_key,
        ))));
    let (mut socket, _) = listener.accept().context("cannot accept")?;
    bound(&socket)?;
    let mut connection = ServerConnection::new(Arc::new(config)).context("cannot start TLS")?;
    let mut stream = Stream::new(&mut connection, &mut socket);
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting).context("handshake")?;
    stream.write_all(&greeting).context("cannot answer")?;
    stream.flush().context("cannot answer")?;
    let peer = peer(
        connection.peer_certificates(),
        connection.protocol_version(),
    )?;
    ensure!(
        peer.leaf.is_only(client),
        "the client is {:?}, not {client}",
        peer.leaf.names
    );
    Ok(peer)
}

fn finish_client(address: SocketAddr, config: ClientConfig, say: &[u8]) -> Result<Peer> {
    let mut socket = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("cannot connect to {address}"))?;
    bound(&socket)?;
    // Neither sent nor compared: the URI says who the server is.
    let name = ServerName::IpAddress(address.ip().into());
    let mut connection =
        ClientConnection::new(Arc::new(config), name).context("cannot start TLS")?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).context("handshake")?;
    }
    let peer = peer(
        connection.peer_certificates(),
        connection.protocol_version(),
    )?;
    // With TLS 1.3 a client is done before the server has judged its certificate: only an answer,
    // or the lack of one, tells.
    let mut stream = Stream::new(&mut connection, &mut socket);
    stream
        .write_all(say)
        .context("the server ended the connection")?;
    stream.flush().context("the server ended the connection")?;
    let mut answer = [0; 1];
    match stream.read(&mut answer) {
        Ok(0) => bail!("the server ended the connection"),
        Ok(_) => Ok(peer),
        Err(error) => Err(error).context("the server ended the connection"),
    }
}

fn client_config(
    own: &Identity,
    server: &str,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
    let provider = Arc::new(ring::default_provider());
    let verifier = SpiffeVerifier {
        expected: server.to_owned(),
        roots: Arc::clone(&own.roots),
        provider: Arc::clone(&provider),
    };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("cannot choose TLS versions")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn bound(socket: &TcpStream) -> Result<()> {
    socket
        .set_read_timeout(Some(TIMEOUT))
        .context("cannot set a timeout")?;
    socket
        .set_write_timeout(Some(TIMEOUT))
        .context("cannot set a timeout")
}

fn peer(
    certificates: Option<&[CertificateDer<'_>]>,
    version: Option<ProtocolVersion>,
) -> Result<Peer> {
    let leaf = certificates
        .and_then(<[_]>::first)
        .context("the peer showed no certificate")?;
    Ok(Peer {
        leaf: Leaf::parse(leaf)?,
        version: version.context("no TLS version")?,
    })
}

/// Chain and dates as everywhere; instead of a host name, one exact SPIFFE ID.
#[derive(Debug)]
struct SpiffeVerifier {
    expected: String,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for SpiffeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let leaf = Leaf::parse(end_entity)
            .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        if leaf.is_only(&self.expected) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
