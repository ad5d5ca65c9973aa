//! What was typed. What it means is in [`Config`](crate::Config).

#[cfg(feature = "gateway")]
mod gateway;
mod provider;
mod target;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use ca_core::TrustDomain;
use clap::{
    Parser,
    builder::{FalseyValueParser, OsStringValueParser, TypedValueParser as _},
};
use tracing::Level;

pub(crate) use provider::{CaProvider, Choice, DropArgs, GoogleArgs, GoogleSubject, VaultArgs};
pub(crate) use target::{CaPool, CaTarget};

/// Keeps a workload certificate fresh and serves it to Envoy over SDS.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sds-agent",
    version,
    after_help = "`sds-agent status` shows how a running agent is doing."
)]
pub struct Args {
    /// Address of the CA: `host:port` or `https://host:port`; a pool at Google, `projects/…/caPools/…`; or `file:<folder>`.
    /// Not needed where all certificates are mounted.
    #[arg(long, env = "CA_ADDR", value_name = "ADDRESS")]
    pub ca_addr: Option<CaTarget>,

    /// Kind of the CA: Citadel (any Istio-compatible one), Vault, `GoogleCAS`, file, or `GkeWorkloadCertificate`, which mounts
    /// certificates and is not asked [default: what the address looks like; a server is Citadel].
    #[arg(long, env = "CA_PROVIDER", value_name = "NAME", default_value = "", hide_default_value = true, value_parser = provider::parse_provider)]
    pub ca_provider: Choice,

    /// Name that the CA's own certificate must have [default: the host of the address].
    #[arg(long, value_name = "NAME")]
    pub ca_server_name: Option<String>,

    /// PEM file with the roots that the CA's own certificate must lead to, or SYSTEM
    /// [default: root-cert.pem beside the provisioned certificate, or
    /// ./var/run/secrets/istio/root-cert.pem; SYSTEM for Google].
    #[arg(
        long,
        env = "CA_ROOT_CA",
        value_name = "FILE",
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub ca_root: Option<PathBuf>,

    /// File with the token that proves this workload's identity to the CA, or for which a token of the CA is had. Read again
    /// at each use.
    /// Nothing: only a provisioned certificate does.
    #[arg(
        long,
        env = "TOKEN_FILE",
        value_name = "FILE",
        default_value = "./var/run/secrets/tokens/istio-token",
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub token_file: PathBuf,

    /// Folder with `cert-chain.pem` and `key.pem` that prove this workload's identity to the CA,
    /// beside the token or without one. May be the output folder.
    #[arg(
        long,
        env = "PROV_CERT",
        value_name = "FOLDER",
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub prov_cert: Option<PathBuf>,

    /// Header that goes along with each request to the CA. Also `CA_HEADER_<NAME>` in the environment.
    #[arg(long = "ca-header", value_name = "NAME=VALUE")]
    pub ca_headers: Vec<String>,

    /// Trust domain of the workload.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,

    /// Namespace of the workload.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,

    /// Service account of the workload.
    #[arg(long, env = "SERVICE_ACCOUNT")]
    pub service_account: String,

    /// Unix socket on which Envoy is served.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "./var/run/secrets/workload-spiffe-uds/socket"
    )]
    pub socket: PathBuf,

    /// Permissions of the socket, in octal. Whoever may write to it gets the workload's key.
    #[arg(long, value_name = "MODE", default_value = "0666", value_parser = parse_mode)]
    pub socket_mode: u32,

    /// User that may connect to the socket; may be repeated [default: anybody who can reach it].
    #[arg(long, value_name = "UID", value_delimiter = ',')]
    pub allow_uid: Vec<u32>,

    /// Primary group that may connect to the socket; may be repeated.
    #[arg(long, value_name = "GID", value_delimiter = ',')]
    pub allow_gid: Vec<u32>,

    /// Lifetime that is asked for.
    #[arg(long, env = "SECRET_TTL", default_value = "24h", value_parser = ca_core::parse_duration)]
    pub secret_ttl: Duration,

    /// Share of a certificate's life that is left when it is renewed, from 0 to 1.
    #[arg(long, env = "SECRET_GRACE_PERIOD_RATIO", default_value_t = 0.5)]
    pub renewal_ratio: f64,

    /// How far the share may stray from that, either way, so that workloads do not renew as one.
    #[arg(long, env = "SECRET_GRACE_PERIOD_RATIO_JITTER", default_value_t = 0.01)]
    pub renewal_jitter: f64,

    /// Folder for `key.pem`, `cert-chain.pem` and `root-cert.pem` [default: none are written].
    #[arg(
        long,
        env = "OUTPUT_CERTS",
        value_name = "FOLDER",
        // Also nothing at all, which is how Istio's templates leave it out.
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub output_dir: Option<PathBuf>,

    /// Folders in which `cert-chain.pem` and `key.pem`, or `root-cert.pem`, may be mounted, or `certificates.pem`,
    /// `private_key.pem` and `ca_certificates.pem`: what is there at the start is served as `default` and `ROOTCA`, and followed,
    /// instead of being asked for.
    #[arg(
        long,
        value_name = "FOLDER",
        value_delimiter = ',',
        default_value = "./etc/certs,./var/run/secrets/workload-spiffe-credentials"
    )]
    pub mounted_certs: Vec<PathBuf>,

    /// Serve mounted files only; ask no CA.
    #[arg(long, env = "FILE_MOUNTED_CERTS", value_parser = FalseyValueParser::new())]
    pub file_mounted_certs: bool,

    /// File with revocation lists (PEM) for Envoy to check certificates against, beside all roots. It may come later, into a
    /// folder that is there at the start.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/secrets/istio/crl/ca-crl.pem",
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub crl_file: PathBuf,

    /// Whether to look for that file.
    #[arg(long, env = "PILOT_ENABLE_CA_CRL", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub crl: bool,

    /// Address of `/healthz`, `/readyz`, `/metrics` and `/debug/sds`.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15020")]
    pub admin_listen: SocketAddr,

    /// Cluster that the workload runs in, as the CA knows it [default: Kubernetes]. Also
    /// `ISTIO_META_CLUSTER_ID` in the environment.
    #[arg(long, env = "CLUSTER_ID")]
    pub cluster_id: Option<String>,

    /// As Istio's templates name it.
    #[arg(long, env = "ISTIO_META_CLUSTER_ID", hide = true)]
    pub istio_cluster_id: Option<String>,

    /// Signer that the CA should use [default: the CA's choice].
    #[arg(long, env = "ISTIO_META_CERT_SIGNER", value_name = "NAME")]
    pub cert_signer: Option<String>,

    /// How much is logged: error, warn, info, debug or trace.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: Level,

    /// For Vault.
    #[command(flatten)]
    pub vault: VaultArgs,

    /// For Google.
    #[command(flatten)]
    pub google: GoogleArgs,

    /// For certificates by hand.
    #[command(flatten)]
    pub by_hand: DropArgs,

    /// For an ingress gateway.
    #[cfg(feature = "gateway")]
    #[command(flatten)]
    pub gateway: gateway::GatewayArgs,
}

impl Args {
    /// Adds what the environment says under names that are not known beforehand.
    #[must_use]
    pub fn with_environment(
        mut self,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Self {
        for (name, value) in variables {
            let header = name
                .to_str()
                .and_then(|name| name.strip_prefix(HEADER_VARIABLE));
            if let Some((header, value)) = header.zip(value.to_str()) {
                self.ca_headers.push(format!("{header}={value}"));
            }
        }
        self
    }
}

/// Istio's agent takes a header from each variable that starts so.
const HEADER_VARIABLE: &str = "CA_HEADER_";

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("permissions are up to three octal digits, such as 0660".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn headers_come_from_the_environment_too() {
        let args = "sds-agent --namespace a --service-account b --ca-header x=y".split(' ');
        let variables = [
            ("CA_HEADER_BAZ", "=baz"),
            ("PATH", "/bin"),
            ("XDS_HEADER_A", "b"),
        ];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let args = Args::try_parse_from(args).unwrap();
        let args = args.with_environment(variables.into_iter());
        assert_eq!(args.ca_headers, ["x=y", "BAZ==baz"]);
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0660"), Ok(0o660));
        assert_eq!(parse_mode("600"), Ok(0o600));
        for wrong in ["", "rw", "888", "10666", "-1"] {
            assert!(parse_mode(wrong).is_err(), "{wrong}");
        }
    }
}
