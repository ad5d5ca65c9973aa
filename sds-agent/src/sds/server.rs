//! The gRPC side of SDS.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ca_proto::envoy::service::{
    discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
    secret::v3::secret_discovery_service_server::SecretDiscoveryService,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    delta::DeltaSession,
    ledger::Heard,
    roll::Roll,
    session::Session,
    stream::{OpenStream, Protocol, Responses},
};
use crate::{clock, metrics::Metrics, secrets::Secrets};

/// Answers `envoy.service.secret.v3.SecretDiscoveryService`.
#[derive(Clone)]
pub(crate) struct SecretService {
    secrets: Secrets,
    metrics: Arc<Metrics>,
    /// Ends the streams, which would otherwise live as long as their clients.
    stop: CancellationToken,
    /// Numbers the streams.
    streams: Arc<AtomicU64>,
    roll: Roll,
}

impl SecretService {
    pub(crate) fn new(secrets: Secrets, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        Self {
            secrets,
            metrics,
            stop,
            streams: Arc::default(),
            roll: Roll::default(),
        }
    }

    /// Who is connected.
    pub(crate) fn roll(&self) -> Roll {
        self.roll.clone()
    }

    fn open<P>(&self, requests: Streaming<P::Request>) -> Response<Responses<P::Response>>
    where
        P: Protocol + Send + 'static,
        P::Request: Send,
        P::Response: Send,
    {
        let number = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let (secrets, metrics) = (self.secrets.clone(), Arc::clone(&self.metrics));
        let (roll, stop) = (&self.roll, self.stop.clone());
        let stream = OpenStream::<P>::new(number, requests, secrets, metrics, roll, stop);
        Response::new(stream.responses())
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for SecretService {
    type StreamSecretsStream = Responses<DiscoveryResponse>;
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(self.open::<Session>(request.into_inner()))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(self.open::<DeltaSession>(request.into_inner()))
    }

    /// One request, one response, which waits for the first certificate if need be.
    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let mut session = Session::new(0, self.secrets.catalogue());
        if session.hear(request.get_ref())? != Heard::Subscribed {
            return Err(Status::invalid_argument("nothing was asked for"));
        }
        let mut secrets = self.secrets.clone();
        let mut followed = Vec::new();
        for name in session.ledger().wanted.keys() {
            followed.extend(secrets.follow(name)?);
        }
        loop {
            if let Some(answer) = session.answer(&secrets.shelf(), clock::now()) {
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

fn stopping() -> Status {
    Status::unavailable("the agent is stopping")
}
