//! Health, readiness, metrics and a page for people over HTTP.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    accept::accept_until,
    clock, debug,
    metrics::Metrics,
    sds::Roll,
    secrets::{Secret, SecretName, Secrets},
};

/// What the endpoints tell about.
#[derive(Clone)]
pub(crate) struct Admin {
    secrets: Secrets,
    metrics: Arc<Metrics>,
    roll: Roll,
}

impl Admin {
    pub(crate) fn new(secrets: Secrets, metrics: Arc<Metrics>, roll: Roll) -> Self {
        Self {
            secrets,
            metrics,
            roll,
        }
    }

    /// Serves on `listener` until `stop`.
    pub(crate) async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let mut http = http1::Builder::new();
        // With a timer, a client that dawdles over its request is cut off after 30 s.
        http.timer(TokioTimer::new());
        accept_until(listener, stop, |connection| {
            let admin = self.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let response = admin.respond(request.method(), request.uri().path(), clock::now());
                async move { Ok::<_, Infallible>(response) }
            });
            http.serve_connection(TokioIo::new(connection), service)
        })
        .await;
    }

    fn respond(&self, method: &Method, path: &str, now: OffsetDateTime) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is served here\n".to_owned(),
            );
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => match self.readiness(now) {
                Ok(ready) => text(StatusCode::OK, ready + "\n"),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
            },
            "/metrics" => match self.metrics.render(&self.secrets, now) {
                Ok(metrics) => {
                    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                    respond(StatusCode::OK, kind, metrics)
                }
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            "/debug/sds" => match debug::page(&self.secrets, &self.roll, now) {
                Ok(page) => text(StatusCode::OK, page),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => {
                let known = "there are /healthz, /readyz, /metrics and /debug/sds\n".to_owned();
                text(StatusCode::NOT_FOUND, known)
            }
        }
    }

    /// Ready means that a valid certificate is being served. The socket needs no look: it was open
    /// before this server was.
    fn readiness(&self, now: OffsetDateTime) -> Result<String, String> {
        let progress = self.secrets.progress();
        let mut trouble = match &progress.last_error {
            Some(error) => format!("; last attempt: {error}"),
            None => String::new(),
        };
        for (name, reason) in self.secrets.troubles() {
            if name.is_of_the_workload() {
                trouble.push_str(&format!("; {name}: {reason}"));
            }
        }
        let shelf = self.secrets.shelf();
        if let Some(secret) = shelf.valid_at(&SecretName::KeyPair, now) {
            let end = secret.not_after().map_or_else(String::new, clock::show);
            return Ok(format!("certificate until {end}{trouble}"));
        }
        match shelf.last(&SecretName::KeyPair).and_then(Secret::not_after) {
            Some(end) => Err(format!(
                "the certificate expired at {}{trouble}",
                clock::show(end)
            )),
            None => Err(format!("no certificate yet{trouble}")),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::secrets::{self, testing::Lineage};

    #[test]
    fn readiness_follows_the_certificate() {
        let (publisher, secrets) = secrets::testing::channel();
        let admin = Admin::new(secrets, Arc::new(Metrics::new()), Roll::default());
        let now = clock::now();
        assert_eq!(admin.readiness(now), Err("no certificate yet".to_owned()));

        publisher.report(|progress| progress.last_error = Some("nobody is there".into()));
        let reason = admin.readiness(now).unwrap_err();
        assert_eq!(reason, "no certificate yet; last attempt: nobody is there");

        let workload = Lineage::new().workload();
        let end = workload.secret.not_after();
        publisher.publish(workload, now);
        let ready = admin.readiness(now).unwrap();
        assert!(ready.starts_with("certificate until 20") && ready.ends_with("nobody is there"));
        assert!(
            admin
                .readiness(end)
                .unwrap_err()
                .starts_with("the certificate expired at 20")
        );
    }

    #[test]
    fn paths_and_methods() {
        let (_publisher, secrets) = secrets::testing::channel();
        let admin = Admin::new(secrets, Arc::new(Metrics::new()), Roll::default());
        let status = |method, path| {
            admin
                .respond(&method, path, datetime!(2026-11-21 12:00 UTC))
                .status()
                .as_u16()
        };
        assert_eq!(status(Method::GET, "/healthz"), 200);
        assert_eq!(status(Method::GET, "/readyz"), 503);
        assert_eq!(status(Method::GET, "/metrics"), 200);
        assert_eq!(status(Method::GET, "/debug/sds"), 200);
        assert_eq!(status(Method::GET, "/"), 404);
        assert_eq!(status(Method::POST, "/healthz"), 405);
    }
}
