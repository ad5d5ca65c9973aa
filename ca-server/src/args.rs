//! What was typed: flags, and the environment under the names that Istio gives it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ca_core::{SubjectName, TrustDomain, parse_duration};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// A certificate authority for service meshes, wire-compatible with Istio.
///
/// Without any flag it creates a root in ./mesh-ca-data, signs over TLS on 127.0.0.1:15012, and accepts tokens that
/// `ca-server token` makes.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Folder for the CA's key and certificates; created with mode 0700.
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_DATA_DIR)]
    pub(crate) data_dir: PathBuf,

    /// Address for certificate requests (gRPC over TLS). Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15012")]
    pub(crate) listen: SocketAddr,

    /// Address for /healthz, /readyz and /metrics (plain HTTP). Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15014")]
    pub(crate) admin_listen: SocketAddr,

    /// The trust domain of the mesh: the authority part of every name.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub(crate) trust_domain: TrustDomain,

    /// More names for the server's own certificate, beside localhost and the loopback addresses.
    #[arg(
        long,
        env = "ISTIOD_CUSTOM_HOST",
        value_name = "NAME,...",
        value_delimiter = ','
    )]
    pub(crate) dns_names: Vec<SubjectName>,

    /// Lifetime of a certificate when the request names none.
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub(crate) default_workload_cert_ttl: Duration,

    /// Longest lifetime; a request for more is refused.
    #[arg(long, env = "MAX_WORKLOAD_CERT_TTL", value_name = "DURATION", default_value = "2160h", value_parser = parse_duration)]
    pub(crate) max_workload_cert_ttl: Duration,

    /// Lifetime of a root that is created here.
    #[arg(long, env = "CITADEL_SELF_SIGNED_CA_CERT_TTL", value_name = "DURATION", default_value = "87600h", value_parser = parse_duration)]
    pub(crate) self_signed_ca_cert_ttl: Duration,

    /// Public keys of a token issuer: a JWK Set or PEM. Without it, the server accepts its own local tokens.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_issuer_keys: Option<PathBuf>,

    /// The `iss` that tokens must have.
    #[arg(
        long,
        env = "TOKEN_ISSUER",
        value_name = "ISSUER",
        requires = "token_issuer_keys"
    )]
    pub(crate) token_issuer: Option<String>,

    /// The audiences of which a token must have one.
    #[arg(
        long,
        env = "TOKEN_AUDIENCES",
        value_name = "AUDIENCE,...",
        value_delimiter = ',',
        default_value = "istio-ca"
    )]
    pub(crate) token_audiences: Vec<String>,

    /// How long requests under way may take to finish after SIGTERM.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) shutdown_duration: Duration,

    /// What to log, such as `info` or `ca_server=debug`.
    #[arg(
        long,
        env = "RUST_LOG",
        value_name = "FILTER",
        default_value = "info",
        global = true
    )]
    log: String,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a token for a workload, for a CA that runs with its local token issuer.
    Token(TokenArgs),
}

/// What a token says.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    /// The folder of the CA.
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_DATA_DIR)]
    pub(crate) data_dir: PathBuf,

    /// The namespace of the workload.
    #[arg(long)]
    pub(crate) namespace: String,

    /// The service account of the workload.
    #[arg(long)]
    pub(crate) service_account: String,

    /// How long the token is good.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub(crate) ttl: Duration,

    /// Whom the token is for.
    #[arg(long, default_value = "istio-ca")]
    pub(crate) audience: String,
}

impl Args {
    /// The log filter; a malformed one is reported and replaced, because logging must not keep a CA from starting.
    pub fn log_filter(&self) -> (EnvFilter, Option<String>) {
        match EnvFilter::try_new(&self.log) {
            Ok(filter) => (filter, None),
            Err(error) => (
                EnvFilter::new("info"),
                Some(format!("log filter {:?}: {error}", self.log)),
            ),
        }
    }
}

pub(crate) const DEFAULT_DATA_DIR: &str = "./mesh-ca-data";
