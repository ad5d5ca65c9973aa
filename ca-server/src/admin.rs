//! The admin listener: is it alive, is it ready, what has it counted. Plain HTTP, for the machine's own network.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ca_core::files::FollowedFiles;
use ca_core::{BundleStore, KeyCertBundle};
use time::OffsetDateTime;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// What the pages are made from.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) bundles: BundleStore,
    pub(crate) metrics: Arc<Metrics>,
    /// Where the CA's key is plugged in.
    pub(crate) files: Option<FollowedFiles<KeyCertBundle>>,
}

impl Admin {
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let routes = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            // Istio's path for the same question.
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self);
        axum::serve(listener, routes)
            .with_graceful_shutdown(end)
            .await
    }
}

/// Ready means: a certificate asked for now would be signed. The listener for requests is open before this one.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge: the question is about now"
)]
async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    let (bundle, now) = (admin.bundles.current(), OffsetDateTime::now_utc());
    if now >= bundle.not_after() {
        let text = format!(
            "the signing certificate, or one above it, has expired at {}\n",
            bundle.not_after()
        );
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    if now < bundle.not_before() {
        let text = format!(
            "the signing certificate is not valid before {}\n",
            bundle.not_before()
        );
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    // What is in use is good; that its successor is not is worth a line here, but no reason to be taken out of service.
    let status = admin.files.map(|files| files.status());
    let refusal = status
        .filter(|status| status.is_refused)
        .and_then(|status| status.last_refusal.clone());
    match refusal {
        Some(refusal) => {
            let text = format!(
                "ready; the CA's files as they are now are not taken: {}\n",
                refusal.error
            );
            (StatusCode::OK, text)
        }
        None => (StatusCode::OK, "ready\n".into()),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.text() {
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
