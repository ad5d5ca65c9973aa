//! The HTTPS endpoint for webhooks: what is asked there is for a cluster to decide, so that it tells no more than its health.

use std::future::Future;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;

use super::http::{self, Incoming};
use super::listener::tls_connections;
use super::tls::CurrentTls;

/// Serves until `end`, then lets requests under way finish.
pub(crate) async fn serve(listener: TcpListener, tls: CurrentTls, end: impl Future<Output = ()>) {
    let connections = tls_connections(listener, tls).filter_map(Result::ok);
    let incoming = connections.map(|connection| Incoming {
        is_http2: connection.get_ref().1.alpn_protocol() == Some(b"h2"),
        connection,
        routes: routes(),
    });
    http::serve(incoming, end).await;
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
