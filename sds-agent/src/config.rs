//! What the flags mean, grouped by who needs it.

mod ca;
#[cfg(feature = "gateway")]
mod gateway;
mod vault;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ca_core::{IdentityError, RenewalError, RenewalPolicy, SpiffeId};

pub(crate) use ca::{
    CaConfig, CaRoots, DropConfig, GoogleAccess, GoogleCaConfig, IstioCaConfig, VaultCaConfig,
    VaultLogin,
};
#[cfg(feature = "gateway")]
pub(crate) use gateway::GatewayConfig;
pub(crate) use vault::{VaultPath, VaultPathError};

use crate::{
    args::{Args, CaProvider, CaTarget},
    socket::Peers,
};

/// Everything that the agent needs to know, checked as far as it can be without touching a file.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the certificate must say, and how it is kept.
    pub(crate) workload: WorkloadConfig,
    /// How the CA is reached, if there is one.
    pub(crate) ca: Option<CaConfig>,
    /// Which certificates are not asked for.
    pub(crate) mounted: MountedConfig,
    /// Where Envoy is served.
    pub(crate) socket: SocketConfig,
    /// Where files are written, if anywhere.
    pub(crate) output_dir: Option<PathBuf>,
    /// Where revocation lists may come.
    pub(crate) crl_file: Option<PathBuf>,
    /// Where health, readiness and metrics are served.
    pub(crate) admin_listen: SocketAddr,
    /// Which Secrets of a cluster are served, if any.
    #[cfg(feature = "gateway")]
    pub(crate) gateway: Option<GatewayConfig>,
}

/// What [`Keeper`](crate::secrets::Keeper) needs to know.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadConfig {
    pub(crate) identity: SpiffeId,
    pub(crate) lifetime: Duration,
    pub(crate) renewal: RenewalPolicy,
}

/// What [`Mounted::find`](crate::secrets::Mounted::find) needs to know.
#[derive(Clone, Debug)]
pub(crate) struct MountedConfig {
    pub(crate) folders: Vec<PathBuf>,
    /// Whether a CA is not to be asked even if something is missing.
    pub(crate) only: bool,
    /// Whether nothing may be missing at the start.
    pub(crate) required: bool,
}

/// What [`socket::bind`](crate::socket::bind) needs to know.
#[derive(Clone, Debug)]
pub(crate) struct SocketConfig {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) peers: Peers,
}

impl Config {
    /// The identity that the agent asks certificates for.
    pub fn identity(&self) -> &SpiffeId {
        &self.workload.identity
    }
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let from_platform = args.ca_provider.0 == Some(CaProvider::GkeFiles);
        let only = args.file_mounted_certs || from_platform;
        if only && not_empty(args.prov_cert.clone()).is_some() {
            return Err(ConfigError::MountedAndProvisioned);
        }
        let identity =
            SpiffeId::workload(&args.trust_domain, &args.namespace, &args.service_account)?;
        let renewal = RenewalPolicy::new(args.renewal_ratio, args.renewal_jitter)?;
        // The wire counts whole seconds, and zero means that the server chooses.
        if args.secret_ttl.as_secs() == 0 {
            return Err(ConfigError::LifetimeTooShort);
        }
        Ok(Self {
            #[cfg(feature = "gateway")]
            gateway: GatewayConfig::from_args(&args),
            ca: CaConfig::from_args(&args, &identity)?,
            workload: WorkloadConfig {
                identity,
                lifetime: args.secret_ttl,
                renewal,
            },
            mounted: MountedConfig {
                folders: args.mounted_certs.clone(),
                only,
                required: from_platform,
            },
            socket: SocketConfig {
                path: args.socket,
                mode: args.socket_mode,
                peers: Peers {
                    users: args.allow_uid,
                    groups: args.allow_gid,
                },
            },
            output_dir: not_empty(args.output_dir),
            crl_file: not_empty(Some(args.crl_file)).filter(|_| args.crl),
            admin_listen: args.admin_listen,
        })
    }
}

/// Istio's templates set variables that are not in use to nothing.
fn not_empty(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

/// Flags that cannot be meant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Trust domain, namespace and service account do not make a SPIFFE ID.
    #[error("the identity is not a SPIFFE ID")]
    Identity(#[from] IdentityError),
    /// Ratio or jitter is not a share.
    #[error(transparent)]
    Renewal(#[from] RenewalError),
    /// Less than a second.
    #[error("a lifetime below one second cannot be asked for")]
    LifetimeTooShort,
    /// Not `name=value`, or not of characters that headers have. The value may be a secret.
    #[error("the CA header {0:?} is not name=value, or has characters that no header has")]
    Header(String),
    /// One says that no CA is asked, the other how it is asked.
    #[error("mounted certificates and a provisioned one exclude each other")]
    MountedAndProvisioned,
    /// Neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address, so no CA certificate can have it")]
    ServerName(String),
    /// One says who is asked, the other where, and they do not go together.
    #[error("a CA of the kind {provider:?} is not reached at {address}")]
    Provider {
        /// The kind.
        provider: CaProvider,
        /// The address.
        address: CaTarget,
    },
    /// Not a path of Vault.
    #[error("{0}")]
    VaultPath(#[from] VaultPathError),
    /// Nothing that signs.
    #[error("--vault-sign-path is needed: <mount>/sign/<role>")]
    NoVaultPath,
    /// Logging in takes both.
    #[error("--vault-login-path and --vault-role go together")]
    HalfALogin,
    /// Not something that a header can have.
    #[error("the namespace {0:?} has characters that no header has")]
    VaultNamespace(String),
    /// Neither Vault nor a token exchange has another proof.
    #[error("--token-file is needed")]
    NoTokenFile,
    /// Not a host, or not a port.
    #[error("{0:?} is not the host of a metadata server")]
    MetadataHost(String),
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn config(extra: &[&str]) -> Result<Config, ConfigError> {
        let base = [
            "sds-agent",
            "--ca-addr",
            "ca.example:15012",
            "--namespace",
            "ns",
        ];
        let args = base.iter().chain(&["--service-account", "sa"]).chain(extra);
        Args::try_parse_from(args).unwrap().try_into()
    }

    fn istio(config: Config) -> IstioCaConfig {
        match config.ca.unwrap() {
            CaConfig::Istio(istio) => istio,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn identity_follows_istio() {
        let config = config(&[]).unwrap();
        assert_eq!(
            config.identity().as_str(),
            "spiffe://cluster.local/ns/ns/sa/sa"
        );
    }

    #[test]
    fn empty_means_absent() {
        let config = config(&["--output-dir", "", "--cert-signer", ""]).unwrap();
        assert!(config.output_dir.is_none() && istio(config).signer.is_none());
    }

    #[test]
    fn the_host_of_the_address_is_the_expected_name_unless_another_is_given() {
        let name = istio(config(&[]).unwrap()).server.name;
        assert_eq!(name.to_str(), "ca.example");
        let other = config(&["--ca-server-name", "istiod.istio-system.svc"]);
        let name = istio(other.unwrap()).server.name;
        assert_eq!(name.to_str(), "istiod.istio-system.svc");
        assert!(config(&["--ca-server-name", "no spaces"]).is_err());
    }

    #[test]
    fn the_roots_of_the_ca_are_found_as_istio_finds_them() {
        let roots = |extra: &[&str]| istio(config(extra).unwrap()).server.roots;
        let file = |path: &str| CaRoots::File(PathBuf::from(path));
        assert_eq!(roots(&[]), file("./var/run/secrets/istio/root-cert.pem"));
        let provisioned = ["--prov-cert", "/etc/certs"];
        assert_eq!(roots(&provisioned), file("/etc/certs/root-cert.pem"));
        let named = [&provisioned[..], &["--ca-root", "/ca.pem"]].concat();
        assert_eq!(roots(&named), file("/ca.pem"));
        assert_eq!(roots(&["--ca-root", "SYSTEM"]), CaRoots::System);
    }

    #[test]
    fn headers_are_names_and_values() {
        let headers = ["--ca-header", "Foo=bar", "--ca-header", "BAZ==baz"];
        let headers = istio(config(&headers).unwrap()).headers;
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(headers, [("foo", "bar"), ("baz", "=baz")]);
        for wrong in ["secret", "a b=secret", "a=secret\n"] {
            let error = config(&["--ca-header", wrong]).unwrap_err().to_string();
            assert!(!error.contains("secret") || wrong == "secret", "{error}");
        }
    }

    #[test]
    fn the_cluster_has_two_names_in_the_environment() {
        let cluster = |extra: &[&str]| istio(config(extra).unwrap()).cluster_id;
        assert_eq!(cluster(&[]), "Kubernetes");
        assert_eq!(cluster(&["--istio-cluster-id", "east"]), "east");
        let both = ["--istio-cluster-id", "east", "--cluster-id", "west"];
        assert_eq!(cluster(&both), "west");
    }

    #[test]
    fn nonsense_is_refused() {
        for files in [
            "--file-mounted-certs",
            "--ca-provider=GkeWorkloadCertificate",
        ] {
            assert!(config(&[files, "--prov-cert", "/etc/certs"]).is_err());
        }
        assert!(config(&["--secret-ttl", "300ms"]).is_err());
        assert!(config(&["--renewal-ratio", "2"]).is_err());
        let args = "sds-agent --ca-addr ca:1 --service-account sa --namespace a/b".split(' ');
        assert!(Config::try_from(Args::try_parse_from(args).unwrap()).is_err());
    }
}
