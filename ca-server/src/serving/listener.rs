//! From a socket to a connection that speaks TLS, and who is at its other end.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ca_core::{Certificate, CertificateChain};
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use super::tls::CurrentTls;

/// Who is at the other end: found out once for each connection, and the same for all requests on it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: Option<SocketAddr>,
    /// As the handshake has verified it.
    pub(crate) client_chain: Option<CertificateChain>,
}

/// Accepts until it is dropped, and hands each connection to `serve`. Handshakes run beside each other and beside the
/// accepting, each with a deadline: a slow or silent client holds up nobody. When there are too many, the oldest is
/// given up, because whoever means it is done in milliseconds.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    tls: CurrentTls,
    serve: impl Fn(TlsStream<TcpStream>, Peer) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut handshakes = VecDeque::<AbortHandle>::new();
    loop {
        let (socket, address) = next_socket(&listener).await;
        if handshakes.len() >= HANDSHAKES_AT_ONCE {
            handshakes.retain(|handshake| !handshake.is_finished());
        }
        if handshakes.len() >= HANDSHAKES_AT_ONCE
            && let Some(oldest) = handshakes.pop_front()
        {
            oldest.abort();
            tls.handshakes().gave_up();
        }
        let (acceptor, serve) = (TlsAcceptor::from(tls.get()), serve.clone());
        let handshakes_of_listener = tls.handshakes().clone();
        let handshake = tokio::spawn(async move {
            match shake_hands(acceptor, socket, address).await {
                // A task of its own: giving up a handshake must not end what came of it.
                Ok((connection, peer)) => _ = tokio::spawn(serve(connection, peer)),
                Err(error) => handshakes_of_listener.failed(address, &error),
            }
        });
        handshakes.push_back(handshake.abort_handle());
    }
}

/// The same as a stream, which ends the accepting when it is dropped.
pub(super) fn tls_connections(
    listener: TcpListener,
    tls: CurrentTls,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (connections, stream) = mpsc::channel(ACCEPTED_AHEAD);
    tokio::spawn(async move {
        let dropped = connections.clone();
        let accepting = accept(listener, tls, move |connection, _| {
            let connections = connections.clone();
            async move {
                // Nobody takes connections any more: this one ends too.
                let _ = connections.send(Ok(connection)).await;
            }
        });
        tokio::select! {
            () = accepting => {}
            () = dropped.closed() => {}
        }
    });
    ReceiverStream::new(stream)
}

/// Accepts until it is dropped.
pub(crate) fn sockets(listener: TcpListener) -> impl Stream<Item = (TcpStream, SocketAddr)> {
    futures_util::stream::unfold(listener, async |listener| {
        Some((next_socket(&listener).await, listener))
    })
}

async fn next_socket(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others must end before one can begin.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    address: SocketAddr,
) -> io::Result<(TlsStream<TcpStream>, Peer)> {
    // Replies are small and complete: waiting to fill a packet only delays them.
    let _ = socket.set_nodelay(true);
    let accepted = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(socket)).await;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "not finished in time");
    let connection = accepted.map_err(late)??;
    let client_chain = connection.get_ref().1.peer_certificates().and_then(chain);
    let peer = Peer {
        address: Some(address),
        client_chain,
    };
    Ok((connection, peer))
}

/// The handshake has verified it; one that cannot be read again is as good as none.
fn chain(certificates: &[CertificateDer<'_>]) -> Option<CertificateChain> {
    let read = certificates
        .iter()
        .map(|der| Certificate::from_der(der.to_vec()));
    let mut all = read.collect::<Result<Vec<_>, _>>().ok()?;
    (!all.is_empty()).then(|| CertificateChain::new(all.remove(0), all))
}

const ACCEPTED_AHEAD: usize = 64;
const HANDSHAKES_AT_ONCE: usize = 1024;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
