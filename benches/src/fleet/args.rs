//! What may be typed.

use std::path::PathBuf;
use std::time::Duration;

use ca_core::{TrustDomain, parse_duration};
use clap::{Args, Parser, Subcommand};

/// A fleet of workloads that ask one CA for certificates: any that speaks Istio's protocol.
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
pub struct FleetArgs {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Ask for certificates, and tell how fast they came.
    Load(Box<LoadArgs>),
    /// Send what no client should, beside a few honest requests, and tell whether those were answered.
    Abuse(Box<AbuseArgs>),
    /// Print what a verification and a signature cost a processor here, in microseconds (P-256, aws-lc-rs).
    Floor {
        /// How long to measure.
        #[arg(long, default_value = "1s", value_parser = parse_duration)]
        duration: Duration,
        /// With that of a TLS handshake in which both sides show a certificate: two verifications more, one signature, and a
        /// key exchange (X25519).
        #[arg(long)]
        connection: bool,
    },
    /// Be a server that does nothing but what a certificate cannot do without: TLS, HTTP/2, one verification and one
    /// signature, and a reply that was made before. What the driver finds there is what the machine can do.
    Bare {
        /// Where to put `root-cert.pem`, and `client-cert.pem` and `client-key.pem` for the driver.
        folder: PathBuf,
    },
    /// Write two CAs to plug in, below one folder, and the keys of two token issuers.
    Material {
        /// The folder.
        folder: PathBuf,
    },
}

/// Which CA.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Host and port.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: String,

    /// Its roots, in PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_root: PathBuf,

    /// The name in its certificate.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub(crate) server_name: String,

    /// Offer X25519MLKEM768 before X25519.
    #[arg(long)]
    pub(crate) hybrid: bool,

    /// For a CA on this machine: come from many addresses, of 127.1.0.0/16, as a fleet does.
    #[arg(long)]
    pub(crate) spread: bool,
}

/// Who asks.
#[derive(Debug, Args)]
pub(crate) struct CallerArgs {
    /// How many workloads.
    #[arg(long, default_value_t = 64)]
    pub(crate) workloads: usize,

    /// How many service accounts they have among them, in turn. Default: each its own.
    #[arg(long)]
    pub(crate) accounts: Option<usize>,

    /// The trust domain in their requests.
    #[arg(long, default_value = "cluster.local")]
    pub(crate) trust_domain: TrustDomain,

    /// The namespace of all of them.
    #[arg(long, default_value = "fleet")]
    pub(crate) namespace: String,

    /// One token, for all of them.
    #[arg(long, value_name = "FILE", group = "token")]
    pub(crate) token_file: Option<PathBuf>,

    /// A folder with a token for each account, in a file of its name.
    #[arg(long, value_name = "FOLDER", group = "token")]
    pub(crate) token_folder: Option<PathBuf>,

    /// A command that prints the token of one workload; {namespace} and {account} are put in. Runs for each account.
    #[arg(long, value_name = "COMMAND", group = "token")]
    pub(crate) token_command: Option<String>,

    /// The key of `ca-server token` (`local-token-key.pem`): tokens are made here.
    #[arg(long, value_name = "FILE", group = "token")]
    pub(crate) token_key: Option<PathBuf>,

    /// For tokens that are made here.
    #[arg(long, default_value = "istio-ca")]
    pub(crate) audience: String,

    /// One certificate with its chain, in PEM, that all of them show.
    #[arg(
        long,
        value_name = "FILE",
        requires = "client_key",
        conflicts_with = "token"
    )]
    pub(crate) client_cert: Option<PathBuf>,

    /// Its key.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,

    /// The share of workloads that change their token for a certificate first, and show that from then on.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) certified: f64,
}

/// A load, and what is told of it.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,

    #[command(flatten)]
    pub(crate) callers: CallerArgs,

    /// This many requests under way at any time: the next is sent when one is answered.
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    pub(crate) in_flight: usize,

    /// This many requests each second, answered or not, instead of `--in-flight`.
    #[arg(long, value_name = "COUNT", conflicts_with = "in_flight")]
    pub(crate) rate: Option<f64>,

    /// Each workload asks once, all at the same moment and over a new connection, and tries again (`--retries`) until it has a
    /// certificate. `--duration` is the longest that is waited for.
    #[arg(long, conflicts_with_all = ["in_flight", "rate", "fresh", "per_connection", "warm_up"])]
    pub(crate) once: bool,

    /// How long a client waits. The server is told.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub(crate) deadline: Duration,

    /// How often a workload tries again after a failure that may pass.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) retries: u32,

    /// The share of requests for which a connection is made and closed. All others go over one that the workload keeps.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) fresh: f64,

    /// How many workloads share a connection that is kept. More than one only with tokens, as a certificate names one.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) per_connection: usize,

    /// How long to measure.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) duration: Duration,

    /// How long to run before that.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(crate) warm_up: Duration,

    /// The lifetime to ask for, in seconds; 0 leaves it to the CA.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) ttl: i64,

    /// Threads of this program, which share the workloads.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) threads: usize,

    /// A server on this machine, to tell its processor time and memory too.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,

    /// Write a plot of the latencies.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,

    /// Write the summary for programs.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) json: Option<PathBuf>,
}

/// Malformed traffic.
#[derive(Debug, Args)]
pub(crate) struct AbuseArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,

    #[command(flatten)]
    pub(crate) callers: CallerArgs,

    /// How long.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    pub(crate) duration: Duration,

    /// Connections that are made and then say nothing.
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub(crate) idle: usize,

    /// Clients of each slow kind: in the handshake, in the HTTP/2 preface, in a message.
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    pub(crate) slow: usize,

    /// The start of the random numbers, to have the same traffic again.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// A server on this machine, to tell its memory too.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,

    /// Write the summary for programs.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) json: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("a share is between 0 and 1".to_owned())
    }
}
