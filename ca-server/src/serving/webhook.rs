//! The HTTPS endpoint for webhooks: what is asked there is for a cluster to decide, so that it tells no more than its health.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;

use super::idle::IdleLimit;
use super::listener::tls_connections;
use super::tls::CurrentTls;

/// Serves until `end`, then lets requests under way finish.
pub(crate) async fn serve(listener: TcpListener, tls: CurrentTls, end: impl Future<Output = ()>) {
    let mut connections = tls_connections(listener, tls);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let next = async {
        while let Some(Ok(connection)) = connections.next().await {
            // Those above the limit are closed at once: waiting, they would hold a socket each.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                let _place = place;
                if let Err(error) = talk(connection, watcher).await {
                    tracing::debug!("connection for webhooks ended: {error}");
                }
            });
        }
    };
    tokio::select! {
        () = end => {}
        () = next => {}
    }
    // Nobody new; those who are here may finish.
    drop(connections);
    graceful.shutdown().await;
}

async fn talk(connection: TlsStream<TcpStream>, watcher: Watcher) -> hyper::Result<()> {
    // By what was agreed on, not by what comes: a client that says nothing must not be waited for without a limit.
    let is_http2 = connection.get_ref().1.alpn_protocol() == Some(b"h2");
    let connection = TokioIo::new(IdleLimit::new(connection, IDLE));
    let service = TowerToHyperService::new(routes());
    if is_http2 {
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

fn routes() -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || {
            let json = [(header::CONTENT_TYPE, "application/json")];
            let body = r#"{"error":"there is nothing at this path"}"#;
            (StatusCode::NOT_FOUND, json, body).into_response()
        })
}

/// As Istio. A connection of HTTP/1 between two requests counts as one that sends a header.
const READ_HEADER: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(90);
/// Of API servers, of which a cluster has few.
const MAX_CONNECTIONS: usize = 256;
