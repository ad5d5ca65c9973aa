//! The API server as a client with Istio's limits has it: 80 calls a second, 160 at once.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

/// Listens for as long as the process, passes on what comes to whom `client` asks, as whom it asks, and writes a kubeconfig that leads
/// here.
pub(crate) async fn listen(client: Client, folder: &Path) -> PathBuf {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Arc::new(Limits::new());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (client, limits) = (client.clone(), Arc::clone(&limits));
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    pass_on(client.clone(), Arc::clone(&limits), request)
                });
                let server = auto::Builder::new(TokioExecutor::new());
                // The server on the other side may be gone.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let file = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "here", "cluster": { "server": format!("http://{address}") } }],
        "users": [{ "name": "me", "user": {} }],
        "contexts": [{ "name": "me", "context": { "cluster": "here", "user": "me" } }],
        "current-context": "me",
    });
    let path = folder.join("limited.kubeconfig");
    std::fs::write(&path, file.to_string()).unwrap();
    path
}

async fn pass_on(
    client: Client,
    limits: Arc<Limits>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    // Istio's client does not count watches either.
    let query = request.uri().query().unwrap_or_default();
    if !query.contains("watch=") {
        limits.wait().await;
    }
    let (mut parts, body) = request.into_parts();
    parts.uri = parts
        .uri
        .path_and_query()
        .unwrap()
        .to_string()
        .parse()
        .unwrap();
    parts.headers.remove(http::header::HOST);
    let failed = |error: &dyn std::fmt::Display| {
        let answer = Response::builder().status(StatusCode::BAD_GATEWAY);
        let text = error.to_string().into_bytes();
        answer.body(Body::from(text)).unwrap()
    };
    let body = match body.collect().await {
        Ok(body) => Body::from(body.to_bytes().to_vec()),
        Err(error) => return Ok(failed(&error)),
    };
    let answer = client.send(Request::from_parts(parts, body)).await;
    Ok(answer.unwrap_or_else(|error| failed(&error)))
}

/// A bucket of tokens.
struct Limits(Mutex<(f64, Instant)>);

impl Limits {
    fn new() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }

    /// In the order in which they came.
    async fn wait(&self) {
        let mut bucket = self.0.lock().await;
        loop {
            let (tokens, since) = *bucket;
            let tokens = (tokens + since.elapsed().as_secs_f64() * EACH_SECOND).min(BURST);
            if tokens >= 1.0 {
                *bucket = (tokens - 1.0, Instant::now());
                return;
            }
            *bucket = (tokens, Instant::now());
            tokio::time::sleep(Duration::from_secs_f64((1.0 - tokens) / EACH_SECOND)).await;
        }
    }
}

const EACH_SECOND: f64 = 80.0;
const BURST: f64 = 160.0;
