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
