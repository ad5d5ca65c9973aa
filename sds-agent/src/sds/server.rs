//! The gRPC side of SDS: shuttles messages between streams and their [`Session`]s.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ca_proto::envoy::service::{
    discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
    secret::v3::secret_discovery_service_server::{
        SecretDiscoveryService, SecretDiscoveryServiceServer,
    },
};
use futures_util::stream::{self, Stream};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, codegen::Service as _};

use super::session::{Answer, BadRequest, Heard, Session};
use crate::{accept::accept_until, clock, metrics::Metrics, secrets::Secrets};

/// Envoy's own limit of concurrent requests to one cluster.
const MOST_STREAMS: u32 = 1024;

/// Answers `envoy.service.secret.v3.SecretDiscoveryService`.
#[derive(Clone)]
pub(crate) struct SecretService {
    secrets: Secrets,
    metrics: Arc<Metrics>,
    /// Ends the streams, which would otherwise live as long as their clients.
    stop: CancellationToken,
    /// Numbers the streams.
    streams: Arc<AtomicU64>,
}

impl SecretService {
    pub(crate) fn new(secrets: Secrets, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        Self {
            secrets,
            metrics,
            stop,
            streams: Arc::default(),
        }
    }

    /// Serves on `listener` until stopped.
    pub(crate) async fn run(self, listener: UnixListener) {
        let stop = self.stop.clone();
        // A message from a stock Envoy has 60 KB, most of it a list of extensions; the generated
        // server takes up to 4 MiB, as Istio's does.
        let service = SecretDiscoveryServiceServer::new(self);
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.max_concurrent_streams(MOST_STREAMS);
        accept_until(listener, stop, |connection| {
            let service = service.clone();
            http.serve_connection(
                TokioIo::new(connection),
                service_fn(move |request| service.clone().call(request)),
            )
        })
        .await;
    }

    fn open(&self, requests: Streaming<DiscoveryRequest>) -> OpenStream {
        let number = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        self.metrics.streams.inc();
        tracing::debug!(stream = number, "a stream opened");
        OpenStream {
            number,
            session: Session::new(number),
            requests,
            secrets: self.secrets.clone(),
            metrics: Arc::clone(&self.metrics),
            stop: self.stop.clone(),
        }
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for SecretService {
    type StreamSecretsStream =
        Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaSecretsStream = stream::Empty<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let stream = self.open(request.into_inner());
        Ok(Response::new(Box::pin(stream::try_unfold(
            stream,
            OpenStream::next,
        ))))
    }

    async fn delta_secrets(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented(
            "DeltaSecrets is not implemented; use `api_type: GRPC` in the SDS configuration",
        ))
    }

    /// One request, one response, which waits for the first certificate if need be.
    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let mut session = Session::new(0);
        if session.hear(request.get_ref())? != Heard::Subscribed {
            return Err(Status::invalid_argument("nothing was asked for"));
        }
        let mut secrets = self.secrets.clone();
        loop {
            if let Some(answer) = session.answer(secrets.valid_at(clock::now()).as_deref()) {
                self.metrics.pushed(&answer.names);
                return Ok(Response::new(answer.response));
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(stopping()),
                changed = secrets.changed() => changed.map_err(|_| stopping())?,
            }
        }
    }
}

/// A stream with everything that it needs. It does something only while its client reads: what
/// changes meanwhile waits in the session and becomes one response.
struct OpenStream {
    number: u64,
    session: Session,
    requests: Streaming<DiscoveryRequest>,
    secrets: Secrets,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl OpenStream {
    /// The next response, or the end.
    async fn next(mut self) -> Result<Option<(DiscoveryResponse, Self)>, Status> {
        loop {
            let current = self.secrets.valid_at(clock::now());
            if let Some(answer) = self.session.answer(current.as_deref()) {
                return Ok(Some((self.sent(answer), self)));
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(None),
                // Before changes: a request may say that the client no longer wants them.
                request = self.requests.message() => match request {
                    Ok(Some(request)) => self.hear(&request)?,
                    // The client has gone, politely or not.
                    Ok(None) => return Ok(None),
                    Err(status) => {
                        tracing::debug!(stream = self.number, %status, "a stream broke");
                        return Ok(None);
                    }
                },
                changed = self.secrets.changed() => if changed.is_err() {
                    return Ok(None);
                },
            }
        }
    }

    fn hear(&mut self, request: &DiscoveryRequest) -> Result<(), Status> {
        let stream = self.number;
        match self.session.hear(request) {
            Ok(Heard::Subscribed) => {
                let names = &request.resource_names;
                tracing::debug!(stream, ?names, "subscribed");
            }
            Ok(Heard::Accepted) => {
                tracing::debug!(stream, version = request.version_info, "accepted");
            }
            Ok(Heard::Refused(reason)) => {
                self.metrics.rejects.inc();
                let names = &request.resource_names;
                tracing::warn!(stream, ?names, reason, "the client refused a response");
            }
            Ok(Heard::Stale) => {
                self.metrics.stale.inc();
            }
            Ok(Heard::Unsubscribed | Heard::Health) => {}
            Err(error) => {
                tracing::warn!(stream, %error, "a request was refused");
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn sent(&self, answer: Answer) -> DiscoveryResponse {
        self.metrics.pushed(&answer.names);
        let version = &answer.response.version_info;
        tracing::debug!(stream = self.number, names = ?answer.names, version, "sent");
        answer.response
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.metrics.streams.dec();
        tracing::debug!(stream = self.number, "a stream closed");
    }
}

impl From<BadRequest> for Status {
    fn from(error: BadRequest) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

fn stopping() -> Status {
    Status::unavailable("the agent is stopping")
}
