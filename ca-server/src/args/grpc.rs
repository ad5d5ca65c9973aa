//! Flags about the listener for certificate requests.

use std::num::NonZeroUsize;
use std::time::Duration;

use ca_core::parse_duration;

use super::value;

/// How the listener for certificate requests treats its connections. Istio's spelling of a flag is accepted too.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connections")]
pub(crate) struct GrpcArgs {
    /// Ask a silent client for a sign of life after this time, at least a second.
    #[arg(long, alias = "keepaliveInterval", env = "GRPC_KEEPALIVE_INTERVAL", value_name = "DURATION", default_value = "30s", value_parser = value::duration(SHORTEST_INTERVAL..=Duration::MAX))]
    pub(crate) keepalive_interval: Duration,

    /// Close the connection when there was none after this time.
    #[arg(long, alias = "keepaliveTimeout", env = "GRPC_KEEPALIVE_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) keepalive_timeout: Duration,

    /// Ask clients to come anew when a connection is this old, so that they spread over replicas. Default: never.
    #[arg(long, alias = "keepaliveMaxServerConnectionAge", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) max_connection_age: Option<Duration>,

    /// How many requests one connection may have under way.
    #[arg(
        long,
        env = "ISTIO_GPRC_MAXSTREAMS",
        value_name = "COUNT",
        default_value_t = 100_000,
        value_parser = value::number::<u32>(1..=u32::MAX.into())
    )]
    pub(crate) max_streams: u32,

    /// The largest request that is read, in bytes.
    #[arg(
        long,
        env = "ISTIO_GPRC_MAXRECVMSGSIZE",
        value_name = "BYTES",
        default_value = "4194304",
        value_parser = value::number::<NonZeroUsize>(1..=u64::MAX)
    )]
    pub(crate) max_message_bytes: NonZeroUsize,

    /// How many requests one address may have under way; 0 for as many as come.
    #[arg(long, value_name = "COUNT", default_value_t = 512, value_parser = value::number::<usize>(0..=u64::MAX))]
    pub(crate) max_requests_per_address: usize,

    /// Serve `IstioCAService.HandleCSR` too, for node agents of Istio up to 1.5.
    #[arg(long)]
    pub(crate) node_agent_service: bool,
}

/// As in Istio's gRPC library: with less, a connection would do nothing else.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
