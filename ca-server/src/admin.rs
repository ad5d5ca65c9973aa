//! The admin listener: is it alive, is it ready, what has it counted, and how is it. Plain HTTP, for the machine's own
//! network.
//!
//! Who may see what: whoever reaches the listener gets `/healthz`, `/readyz` and `/metrics`, which probes and scrapers
//! need. `/debug` and the page tell names of workloads and addresses of callers, and are for the machine itself: see
//! [`local`].

use std::future::Future;

use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;

use crate::observed::Server;
use crate::report::Readiness;
use crate::serving::http::{self, Incoming};
use crate::serving::sockets;

mod local;
mod page;

/// Answers until the end.
pub(crate) async fn serve(listener: TcpListener, server: Server, end: impl Future<Output = ()>) {
    let for_this_machine = Router::new()
        .route("/", get(page::page))
        .route("/debug", get(debug))
        .layer(middleware::from_fn(local::only));
    let routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        // Istio's path for the same question.
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .merge(for_this_machine)
        .with_state(server);
    let incoming = sockets(listener).map(|(connection, peer)| Incoming {
        connection,
        is_http2: false,
        routes: routes.clone().layer(Extension(ConnectInfo(peer))),
    });
    http::serve(incoming, end).await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "an edge: the question is about now"
)]
async fn ready(State(server): State<Server>) -> (StatusCode, String) {
    let readiness = server.readiness(OffsetDateTime::now_utc());
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, lines(&readiness))
}

/// The verdict first, then one line for each thing.
fn lines(readiness: &Readiness) -> String {
    let verdict = if readiness.ready {
        "ready"
    } else {
        "not ready"
    };
    let mut text = format!("{verdict}\n");
    for (word, all) in [("missing", &readiness.missing), ("note", &readiness.notes)] {
        for each in all {
            // What it quotes may have lines of its own.
            let each = each.replace('\n', " ");
            text.push_str(&format!("{word}: {each}\n"));
        }
    }
    text
}

#[expect(
    clippy::disallowed_methods,
    reason = "an edge: the question is about now"
)]
async fn debug(State(server): State<Server>) -> Response {
    let report = server.report(OffsetDateTime::now_utc()).await;
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, report.to_json()).into_response()
}

async fn metrics(State(server): State<Server>) -> Response {
    match server.metrics() {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
