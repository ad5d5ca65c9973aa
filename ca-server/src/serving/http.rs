//! HTTP for the listeners beside the one for certificates: few connections, each with deadlines.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio_stream::{Stream, StreamExt as _};

use super::idle::IdleLimit;

/// A connection, and what is answered on it.
pub(crate) struct Incoming<T> {
    pub(crate) connection: T,
    /// By what was agreed on, not by what comes: a client that says nothing must not be waited for without a limit.
    pub(crate) is_http2: bool,
    pub(crate) routes: Router,
}

/// Serves until `end`, then lets requests under way finish.
pub(crate) async fn serve<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connections: impl Stream<Item = Incoming<T>>,
    end: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let mut open = VecDeque::<AbortHandle>::new();
    {
        let mut connections = pin!(connections);
        let next = async {
            while let Some(incoming) = connections.next().await {
                if open.len() >= MAX_CONNECTIONS {
                    open.retain(|connection| !connection.is_finished());
                }
                // Whoever means it is done in milliseconds: the newest is not the one to suffer.
                if open.len() >= MAX_CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let watcher = graceful.watcher();
                let connection = tokio::spawn(async move {
                    if let Err(error) = talk(incoming, watcher).await {
                        tracing::debug!("HTTP connection ended: {error}");
                    }
                });
                open.push_back(connection.abort_handle());
            }
        };
        tokio::select! {
            () = end => {}
            () = next => {}
        }
        // Nobody new; those who are here may finish.
    }
    graceful.shutdown().await;
}

async fn talk<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    incoming: Incoming<T>,
    watcher: Watcher,
) -> hyper::Result<()> {
    let connection = TokioIo::new(IdleLimit::new(incoming.connection, IDLE));
    let service = TowerToHyperService::new(incoming.routes);
    if incoming.is_http2 {
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        let talk = http2.timer(TokioTimer::new());
        pin!(watcher.watch(talk.serve_connection(connection, service))).await
    } else {
        let mut http1 = http1::Builder::new();
        let talk = http1
            .timer(TokioTimer::new())
            .header_read_timeout(READ_HEADER);
        pin!(watcher.watch(talk.serve_connection(connection, service))).await
    }
}

/// As Istio. A connection of HTTP/1 between two requests counts as one that sends a header.
const READ_HEADER: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(90);
/// Of API servers, probes and scrapers, of which a cluster has few.
const MAX_CONNECTIONS: usize = 256;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    /// For how many seconds somebody is waited for who has said this and says no more.
    async fn patience(is_http2: bool, said: &[u8]) -> u64 {
        let (connection, mut client) = tokio::io::duplex(4096);
        let incoming = Incoming {
            connection,
            is_http2,
            routes: Router::new(),
        };
        let graceful = GracefulShutdown::new();
        let start = Instant::now();
        let silent = async {
            client.write_all(said).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
        };
        let talk = Box::pin(talk(incoming, graceful.watcher()));
        // How it ends is for the log.
        let _ = tokio::join!(talk, silent);
        start.elapsed().as_secs()
    }

    /// Istio, webhook server: row by row; but its clients of HTTP/1 have 90 s between two requests.
    #[tokio::test(start_paused = true)]
    async fn a_header_has_thirty_seconds_and_a_silent_connection_ninety() {
        assert_eq!(patience(false, b"GET / HTTP/1.1\r\nHost:").await, 30);
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_eq!(patience(false, request).await, 30);
        let begun = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        assert_eq!(patience(true, begun).await, 90);
    }
}
