//! The time before there is a CA: nothing can be signed, not even the certificate of our own listener. So that
//! listener is closed, and whoever connects learns at once that it is to try again; the admin listener and the control
//! socket answer, and say what is waited for.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use ca_core::BundleStore;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

use super::{Situation, Upstream, UpstreamHandle};
use crate::control;
use crate::output;

/// What answers while there is no CA.
pub(crate) struct Meanwhile<'a> {
    pub(crate) admin: &'a TcpListener,
    pub(crate) control: &'a UnixListener,
}

/// Waits for the first certificate of `upstream`.
pub(crate) async fn answer_meanwhile(
    meanwhile: Meanwhile<'_>,
    upstream: &mut Upstream,
    handle: &UpstreamHandle,
) -> io::Result<BundleStore> {
    let asking = async {
        tokio::select! {
            () = upstream.obtain() => {}
            () = control::serve(meanwhile.control, control::Server::Waiting(handle.clone())) => {}
        }
    };
    answer_until(meanwhile.admin, handle.situation.clone(), asking).await?;
    upstream
        .bundles()
        .cloned()
        .ok_or_else(|| io::Error::other("there is no certificate"))
}

/// Does `work`, and lets the admin listener say meanwhile what is waited for.
pub(crate) async fn answer_until<T>(
    admin: &TcpListener,
    situation: Situation,
    work: impl Future<Output = T>,
) -> io::Result<T> {
    // A second handle to the same socket: the first goes on to the complete server.
    let twin = std::net::TcpListener::from(admin.as_fd().try_clone_to_owned()?);
    let admin = TcpListener::from_std(twin)?;
    output::announce(&format_args!(
        "mesh-ca ca-server {}\nwaiting for        {}\nadmin              {}\n",
        env!("CARGO_PKG_VERSION"),
        situation.wanted(),
        admin.local_addr()?
    ));
    let (end, ended) = oneshot::channel::<()>();
    let pages = axum::serve(admin, routes(situation)).with_graceful_shutdown(async move {
        // An error means that the sender is gone, which ends us as well.
        let _ = ended.await;
    });
    let pages = tokio::spawn(pages.into_future());
    let done = work.await;
    drop(end);
    // A client that holds on to its connection would else be told for ever that nothing is there.
    let abort = pages.abort_handle();
    if tokio::time::timeout(PATIENCE, pages).await.is_err() {
        abort.abort();
    }
    Ok(done)
}

fn routes(situation: Situation) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(not_ready))
        .route("/ready", get(not_ready))
        .with_state(situation)
}

async fn not_ready(State(situation): State<Situation>) -> (StatusCode, String) {
    let mut text = format!("not ready\nmissing: {}\n", situation.wanted());
    if let Some(awaited) = situation.awaited() {
        text.push_str(&format!("missing: {awaited}\n"));
    }
    if let Some((_, why)) = situation.failure() {
        text.push_str(&format!("note: {}\n", why.replace('\n', " ")));
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

const PATIENCE: Duration = Duration::from_secs(1);
