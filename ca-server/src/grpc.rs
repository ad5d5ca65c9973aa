//! The listener for certificate requests: which services it has, and how it treats connections.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ca_proto::ISTIO_FILE_DESCRIPTOR_SET;
use ca_proto::istio::v1::auth::istio_ca_service_server::IstioCaServiceServer;
use ca_proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::RoutesBuilder;
use tonic_reflection::server as reflection;

use crate::args::GrpcArgs;
use crate::authority::signing::Signing;
use crate::calls::Calls;
use crate::health;
use crate::node_agent::NodeAgentService;
use crate::service::Service;
use crate::serving::CurrentTls;
use crate::serving::connection::{self, ConnectionLimits};

/// How connections are treated.
#[derive(Clone, Debug)]
pub(crate) struct GrpcConfig {
    keepalive_interval: Duration,
    keepalive_timeout: Duration,
    max_connection_age: Option<Duration>,
    max_streams: u32,
    max_message_bytes: usize,
    node_agent_service: bool,
    pub(crate) max_requests_per_address: Option<NonZeroUsize>,
}

impl From<GrpcArgs> for GrpcConfig {
    fn from(args: GrpcArgs) -> Self {
        Self {
            keepalive_interval: args.keepalive_interval,
            keepalive_timeout: args.keepalive_timeout,
            max_connection_age: args.max_connection_age,
            max_streams: args.max_streams,
            max_message_bytes: args.max_message_bytes.get(),
            node_agent_service: args.node_agent_service,
            max_requests_per_address: NonZeroUsize::new(args.max_requests_per_address),
        }
    }
}

/// Serves until `end` is true, then lets requests under way finish.
pub(crate) async fn serve(
    config: GrpcConfig,
    service: Service,
    signing: Signing,
    listener: TcpListener,
    tls: CurrentTls,
    end: watch::Receiver<bool>,
) -> Result<(), GrpcError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let service = Arc::new(service);
    let mut others = RoutesBuilder::default();
    others.add_service(health);
    if config.node_agent_service {
        let node_agents = IstioCaServiceServer::new(NodeAgentService::new(Arc::clone(&service)));
        others.add_service(node_agents.max_decoding_message_size(config.max_message_bytes));
    }
    others.add_service(described(&config).build_v1()?);
    // What older clients ask for, and Istio has too.
    others.add_service(described(&config).build_v1alpha()?);
    let calls = Calls {
        certificates: IstioCertificateServiceServer::from_arc(Arc::clone(&service))
            .max_decoding_message_size(config.max_message_bytes),
        others: others.routes().prepare(),
        service,
    };
    let limits = ConnectionLimits {
        streams: config.max_streams,
        keepalive_interval: config.keepalive_interval,
        keepalive_timeout: config.keepalive_timeout,
        age: config.max_connection_age,
        grace: AGE_GRACE,
    };
    let health = health::keep_reported(reporter, signing, end.clone());
    tokio::select! {
        () = connection::serve_all(listener, tls, calls, limits, end) => Ok(()),
        () = health => Ok(()),
    }
}

/// What reflection tells.
fn described(config: &GrpcConfig) -> reflection::Builder<'static> {
    let services = reflection::Builder::configure()
        .register_encoded_file_descriptor_set(ISTIO_FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(SERVICES[0])
        .with_service_name(SERVICES[1]);
    if config.node_agent_service {
        services.with_service_name(NODE_AGENTS)
    } else {
        services
    }
}

/// Why the listener does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrpcError {
    #[error("reflection: {0}")]
    Reflection(#[from] reflection::Error),
}

/// What reflection names.
const SERVICES: [&str; 2] = [
    "istio.v1.auth.IstioCertificateService",
    "grpc.health.v1.Health",
];
const NODE_AGENTS: &str = "istio.v1.auth.IstioCAService";
/// What Istio gives requests under way on a connection that has become too old.
const AGE_GRACE: Duration = Duration::from_secs(10);
