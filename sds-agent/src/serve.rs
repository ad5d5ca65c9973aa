//! Everything that is spoken on the Unix socket.

use ca_proto::spiffe::workload::spiffe_workload_api_server::{
    SERVICE_NAME, SpiffeWorkloadApiServer,
};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service as _;

use crate::{
    accept::accept_until,
    sds::{self, SecretService},
    socket::GuardedListener,
    unix_authority::AnyAuthority,
    workload_api::WorkloadApi,
};

/// Envoy's own limit of concurrent requests to one cluster.
const MOST_STREAMS: u32 = 1024;

/// Serves SDS and the Workload API on `listener` until stopped.
pub(crate) async fn serve(
    listener: GuardedListener,
    secrets: SecretService,
    workload_api: WorkloadApi,
    stop: CancellationToken,
) {
    let spiffe = SpiffeWorkloadApiServer::new(workload_api);
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.max_concurrent_streams(MOST_STREAMS);
    accept_until(listener, stop, |connection| {
        let (secrets, spiffe) = (secrets.clone(), spiffe.clone());
        let answer = service_fn(move |request: http::Request<Incoming>| {
            if is_for(SERVICE_NAME, request.uri().path()) {
                spiffe.clone().call(request)
            } else {
                // In a box that goes with the answer: what follows of a stream needs less room, and lasts.
                Box::pin(sds::answer(secrets.clone(), request))
            }
        });
        http.serve_connection(TokioIo::new(AnyAuthority::new(connection)), answer)
    })
    .await;
}

/// Whether a path is `/<service>/<method>`.
fn is_for(service: &str, path: &str) -> bool {
    let rest = path
        .strip_prefix('/')
        .and_then(|path| path.strip_prefix(service));
    rest.is_some_and(|rest| rest.starts_with('/'))
}
