//! From a socket to a stream of connections that speak TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use super::tls::CurrentTls;

/// Accepts until the stream is dropped. Handshakes run beside each other and beside the accepting, each with a
/// deadline, so that a slow or silent client holds up nobody.
pub(crate) fn tls_connections(
    listener: TcpListener,
    tls: CurrentTls,
) -> ReceiverStream<Result<TlsStream<TcpStream>, io::Error>> {
    let (connections, stream) = mpsc::channel(ACCEPTED_AHEAD);
    tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_AT_ONCE));
        while let Some(socket) = accept(&listener, &connections).await {
            // Closed never: the semaphore lives as long as this loop.
            let Ok(place) = Arc::clone(&handshakes).acquire_owned().await else {
                return;
            };
            let (acceptor, connections) = (TlsAcceptor::from(tls.get()), connections.clone());
            tokio::spawn(async move {
                let _place = place;
                if let Some(connection) = shake_hands(acceptor, socket).await {
                    // The server is gone: so is the connection.
                    let _ = connections.send(Ok(connection)).await;
                }
            });
        }
    });
    ReceiverStream::new(stream)
}

/// The next socket; `None` when nobody takes connections any more.
async fn accept<T>(listener: &TcpListener, connections: &mpsc::Sender<T>) -> Option<TcpStream> {
    loop {
        tokio::select! {
            () = connections.closed() => return None,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => return Some(socket),
                Err(error) => {
                    // Out of file descriptors, most likely: others must end before one can begin.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
            },
        }
    }
}

async fn shake_hands(acceptor: TlsAcceptor, socket: TcpStream) -> Option<TlsStream<TcpStream>> {
    let peer = socket.peer_addr().ok();
    // Replies are small and complete: waiting to fill a packet only delays them.
    let _ = socket.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(socket)).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            tracing::debug!(?peer, "TLS handshake failed: {error}");
            None
        }
        Err(_) => {
            tracing::debug!(?peer, "TLS handshake not finished in time");
            None
        }
    }
}

const ACCEPTED_AHEAD: usize = 64;
const HANDSHAKES_AT_ONCE: usize = 1024;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
