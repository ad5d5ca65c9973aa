//! What was typed: flags, and the environment under the names that Istio gives it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ca_core::{TrustDomain, parse_duration};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::authority::rotator::RotationStep;

mod authentication;
mod authority;
mod cluster_callers;
mod cluster_roots;
mod explain;
mod file;
mod grpc;
mod kubernetes;
mod layers;
mod registration;
mod serving;
mod telemetry;
mod value;

pub(crate) use authentication::{AuthenticationArgs, clock_skew};
pub(crate) use authority::AuthorityArgs;
pub(crate) use cluster_callers::{ClusterCallersArgs, TokensAre};
pub(crate) use cluster_roots::ClusterRootsArgs;
pub use explain::ExplainArgs;
pub(crate) use explain::{Header, TokenPlace};
pub(crate) use grpc::GrpcArgs;
pub(crate) use kubernetes::KubernetesArgs;
pub use layers::{ConfigurationError, Settings};
pub(crate) use registration::RegistrationArgs;
pub(crate) use serving::{NamedHosts, ServingArgs};
pub(crate) use telemetry::TelemetryArgs;

/// A certificate authority for service meshes, wire-compatible with Istio.
///
/// Without any flag it creates a root in ./mesh-ca-data, signs over TLS on 127.0.0.1:15012, and accepts tokens that
/// `ca-server token` makes.
///
/// A flag --some-name can also be the variable that stands beside it, else MESH_CA_SOME_NAME, or `some-name` in the file
/// --config (TOML). What is typed wins over the environment, and that over the file. `ca-server config` shows the outcome.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// File with values for these flags, in TOML: `listen = "0.0.0.0:15012"`.
    #[arg(long, env = "MESH_CA_CONFIG", value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// Folder for the CA's key and certificates; created with mode 0700.
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_DATA_DIR)]
    pub(crate) data_dir: PathBuf,

    /// Address for certificate requests (gRPC over TLS). Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15012", value_parser = value::address)]
    pub(crate) listen: SocketAddr,

    /// Address for /healthz, /readyz, /metrics and, from this machine, /debug (plain HTTP). Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15014", value_parser = value::address)]
    pub(crate) admin_listen: SocketAddr,

    /// The trust domain of the mesh: the authority part of every name.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub(crate) trust_domain: TrustDomain,

    /// Lifetime of a certificate when the request names none.
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub(crate) default_workload_cert_ttl: Duration,

    /// Longest lifetime; a request for more is refused.
    #[arg(long, env = "MAX_WORKLOAD_CERT_TTL", value_name = "DURATION", default_value = "2160h", value_parser = parse_duration)]
    pub(crate) max_workload_cert_ttl: Duration,

    /// Folder of a plugged-in CA: `ca-cert.pem ca-key.pem cert-chain.pem root-cert.pem`, or `tls.crt tls.key ca.crt`.
    /// Used when it has these files, and followed while the server runs; else the CA is self-signed.
    #[arg(
        long,
        env = "ROOT_CA_DIR",
        value_name = "FOLDER",
        default_value = "./etc/cacerts"
    )]
    pub(crate) root_ca_dir: PathBuf,

    /// Lifetime of a root that is created here.
    #[arg(long, env = "CITADEL_SELF_SIGNED_CA_CERT_TTL", value_name = "DURATION", default_value = "87600h", value_parser = parse_duration)]
    pub(crate) self_signed_ca_cert_ttl: Duration,

    /// How often to look whether the self-signed root is near its end; 0 for never.
    #[arg(long, env = "CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL", value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub(crate) root_check_interval: Duration,

    /// The root is near its end when less than this share of its life is left.
    #[arg(
        long,
        env = "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE",
        value_name = "PERCENT",
        default_value_t = 20,
        value_parser = value::number::<u8>(0..=100)
    )]
    pub(crate) root_grace_percent: u8,

    /// Take the first look at a random moment, so that replicas do not act in step.
    #[arg(long, env = "CITADEL_ENABLE_JITTER_FOR_ROOT_CERT_ROTATOR", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) root_check_jitter: bool,

    /// What to do then: `renew` gives the same key a longer life, as Istio does; `replace` brings in a new key in stages.
    #[arg(long, value_name = "WAY", default_value = "renew")]
    pub(crate) root_rotation: RootRotation,

    /// With `replace`: how long a new root is trusted before it signs, and the old one after it has stopped. Default:
    /// the longest lifetime of a certificate.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) root_overlap: Option<Duration>,

    /// How many requests may wait for a thread; of more, those that are least urgent are turned away.
    #[arg(long, value_name = "COUNT", default_value = "2048", value_parser = value::number::<NonZeroUsize>(1..=u64::MAX))]
    pub(crate) max_waiting: NonZeroUsize,

    /// How many requests of one identity may wait.
    #[arg(long, value_name = "COUNT", default_value = "64", value_parser = value::number::<NonZeroUsize>(1..=u64::MAX))]
    pub(crate) max_waiting_per_identity: NonZeroUsize,

    /// Write a record of everything issued and refused to this file, as JSON lines.
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log: Option<PathBuf>,

    /// Do not release what cannot be recorded.
    #[arg(long, requires = "audit_log")]
    pub(crate) audit_required: bool,

    /// Put the audit file aside when it has this many bytes, at least one.
    #[arg(long, value_name = "BYTES", default_value_t = 100 * 1024 * 1024, value_parser = value::number::<u64>(1..=u64::MAX))]
    pub(crate) audit_max_bytes: u64,

    /// How many full audit files to keep, at least one.
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = value::number::<u32>(1..=u32::MAX.into()))]
    pub(crate) audit_keep: u32,

    /// How long requests under way may take to finish after SIGTERM.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) shutdown_duration: Duration,

    /// What to log, such as `info` or `ca_server=debug`.
    #[arg(
        long,
        env = "RUST_LOG",
        value_name = "FILTER",
        default_value = "info",
        global = true,
        value_parser = log_filter
    )]
    log: LogFilter,

    /// How to log: lines for people, or an object in each line.
    #[arg(long, value_name = "FORMAT", default_value = "text", global = true)]
    pub(crate) log_format: LogFormat,

    // Last, because their headings would stand over everything behind it.
    #[command(flatten)]
    pub(crate) grpc: GrpcArgs,

    #[command(flatten)]
    pub(crate) kubernetes: KubernetesArgs,

    #[command(flatten)]
    pub(crate) cluster_callers: ClusterCallersArgs,

    #[command(flatten)]
    pub(crate) cluster_roots: ClusterRootsArgs,

    #[command(flatten)]
    pub(crate) authority: AuthorityArgs,

    #[command(flatten)]
    pub(crate) registration: RegistrationArgs,

    #[command(flatten)]
    pub(crate) authentication: AuthenticationArgs,

    #[command(flatten)]
    pub(crate) serving: ServingArgs,

    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a token for a workload, for a CA that runs with its local token issuer.
    Token(TokenArgs),
    /// Replace the root of a running server in stages, or tell where that stands.
    Rotate(RotateArgs),
    /// Tell how a running server is; fail if it is not ready.
    Status(StatusArgs),
    /// Say what would be decided about a caller, by whom and by which rule; fail if it would be refused. Needs no
    /// running server. Flags of the server stand before the verb.
    Explain(ExplainArgs),
    /// Print what is in force as a configuration file, with where each value comes from. Flags stand before the verb.
    Config,
    /// Work with a policy file.
    Policy(PolicyArgs),
}

/// For whom the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// What happens to a root near its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RootRotation {
    Renew,
    Replace,
}

/// One step of a rotation.
#[derive(Debug, clap::Args)]
pub struct RotateArgs {
    /// The step.
    pub(crate) step: RotationStep,

    /// The folder of the CA. Default: that of the server.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Which server, and for whom the answer is.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The folder of the CA. Default: that of the server.
    #[arg(long, value_name = "FOLDER", conflicts_with = "admin")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Ask this admin listener instead. It answers on its own machine only.
    #[arg(long, value_name = "ADDRESS", value_parser = value::address)]
    pub(crate) admin: Option<SocketAddr>,

    /// Print the object of /debug.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do with a policy file.
#[derive(Debug, clap::Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) verb: PolicyVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Say what is wrong with a file, line by line; fail if anything is.
    Check {
        /// The policy, in TOML.
        file: PathBuf,

        /// The trust domain of the mesh, for patterns that begin with a slash. Default: that of the server.
        #[arg(long)]
        trust_domain: Option<TrustDomain>,
    },
}

/// What a token says.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    /// The folder of the CA. Default: that of the server.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,

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
    pub(crate) fn log_filter(&self) -> EnvFilter {
        // Each of the parts is known to be good.
        EnvFilter::new(format!("{NOISE},{}", self.log.0))
    }

    /// Whose tokens a server with this configuration accepts, if not its own.
    pub(crate) fn others_tokens(&self) -> Option<&'static str> {
        if self.authentication.names_an_issuer() {
            return Some("those of the issuers that are configured");
        }
        let kubernetes = self.kubernetes.kubernetes;
        kubernetes.then_some("those of service accounts of the cluster")
    }
}

/// The text of a filter that parses.
#[derive(Clone, Debug)]
struct LogFilter(String);

fn log_filter(text: &str) -> Result<LogFilter, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(LogFilter(text.into())),
        Err(error) => Err(error.to_string()),
    }
}

/// The client for Kubernetes has a line for each attempt to reach an API server that is away, without saying which or why; whoever
/// made the call says so. What is typed comes after it, and so can turn it on.
const NOISE: &str = "kube_client::client::builder=off";

pub(crate) const DEFAULT_DATA_DIR: &str = "./mesh-ca-data";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Istio's variables that the CA reads, with their defaults in istiod; "" for none.
    #[test]
    fn istios_variables_are_read_and_have_istios_defaults() {
        let command = Args::command();
        for (variable, default) in [
            ("AUDIENCE", ""),
            ("CA_TRUSTED_NODE_ACCOUNTS", ""),
            ("CERT_SIGNER_DOMAIN", ""),
            ("CITADEL_ENABLE_JITTER_FOR_ROOT_CERT_ROTATOR", "true"),
            ("CITADEL_SELF_SIGNED_CA_CERT_TTL", "87600h"),
            ("CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL", "1h"),
            (
                "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE",
                "20",
            ),
            ("CLUSTER_ID", "Kubernetes"),
            ("COMPLIANCE_POLICY", ""),
            ("DEFAULT_WORKLOAD_CERT_TTL", "24h"),
            ("ENABLE_CLUSTER_TRUST_BUNDLE_API", "false"),
            ("EXTERNAL_CA", ""),
            ("GRPC_KEEPALIVE_INTERVAL", "30s"),
            ("GRPC_KEEPALIVE_TIMEOUT", "10s"),
            ("ISTIOD_CUSTOM_HOST", ""),
            ("ISTIO_GPRC_MAXRECVMSGSIZE", "4194304"),
            ("ISTIO_GPRC_MAXSTREAMS", "100000"),
            ("JWT_RULE", ""),
            ("K8S_SIGNER", ""),
            ("MAX_WORKLOAD_CERT_TTL", "2160h"),
            ("PILOT_CA_CERT_CONFIGMAP", "istio-ca-root-cert"),
            ("PILOT_CERT_PROVIDER", "istiod"),
            ("PILOT_CRL_CONFIGMAP", "istio-ca-crl"),
            ("PILOT_ENABLE_CA_CRL", "true"),
            ("POD_NAME", ""),
            // Istio's is istio-system; here none says that the names of the server are those of its machine.
            ("POD_NAMESPACE", ""),
            ("REVISION", ""),
            ("ROOT_CA_DIR", "./etc/cacerts"),
            ("TOKEN_AUDIENCES", "istio-ca"),
            ("TOKEN_ISSUER", ""),
            ("TRUSTED_GATEWAY_CIDR", ""),
            ("TRUST_DOMAIN", "cluster.local"),
            ("USE_CACERTS_FOR_SELF_SIGNED_CA", "false"),
            ("XDS_AUTH", "true"),
        ] {
            let mut flags = command.get_arguments();
            let flag = flags.find(|flag| flag.get_env().is_some_and(|name| name == variable));
            let flag = flag.unwrap_or_else(|| panic!("no flag reads {variable}"));
            let defaults: Vec<_> = flag.get_default_values().iter().collect();
            let default = Some(default).filter(|text| !text.is_empty());
            assert_eq!(defaults, Vec::from_iter(default), "{variable}");
        }
    }

    #[test]
    fn istios_spelling_of_its_flags_is_understood_and_the_end_comes_after_ten_seconds() {
        let typed = |words: &[&str]| Args::try_parse_from(["ca-server"].iter().chain(words));
        let nothing = typed(&[]).unwrap();
        assert_eq!(nothing.shutdown_duration, Duration::from_secs(10));
        assert_eq!(nothing.grpc.max_connection_age, None);
        assert_eq!(nothing.admin_listen.port(), 15014);
        let istios = typed(&[
            "--keepaliveInterval=1m",
            "--keepaliveTimeout=2m",
            "--keepaliveMaxServerConnectionAge=3m",
        ]);
        let grpc = istios.unwrap().grpc;
        let minutes = |count: u64| Duration::from_secs(count * 60);
        assert_eq!(grpc.keepalive_interval, minutes(1));
        assert_eq!(grpc.keepalive_timeout, minutes(2));
        assert_eq!(grpc.max_connection_age, Some(minutes(3)));
    }
}
