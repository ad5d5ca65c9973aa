//! What the flags mean, grouped by who needs it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ca_core::{IdentityError, RenewalError, RenewalPolicy, SpiffeId};
use rustls::pki_types::ServerName;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};

use crate::{args::Args, ca_client::CaAddress, socket::Peers};

/// Everything that the agent needs to know, checked as far as it can be without touching a file.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the certificate must say, and how it is kept.
    pub(crate) workload: WorkloadConfig,
    /// How the CA is reached, if there is one.
    pub(crate) ca: Option<IstioCaConfig>,
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
}

/// What [`Keeper`](crate::secrets::Keeper) needs to know.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadConfig {
    pub(crate) identity: SpiffeId,
    pub(crate) lifetime: Duration,
    pub(crate) renewal: RenewalPolicy,
}

/// What [`IstioCaClient`](crate::ca_client::IstioCaClient) needs to know.
#[derive(Clone, Debug)]
pub(crate) struct IstioCaConfig {
    pub(crate) address: CaAddress,
    pub(crate) server_name: ServerName<'static>,
    pub(crate) roots: CaRoots,
    /// Without one, the client certificate has to do.
    pub(crate) token_file: Option<PathBuf>,
    /// Where a client certificate may lie.
    pub(crate) provisioned: Option<PathBuf>,
    pub(crate) cluster_id: String,
    pub(crate) signer: Option<String>,
    /// What goes along with each request.
    pub(crate) headers: Vec<CaHeader>,
}

/// Where the roots are that the CA's own certificate must lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CaRoots {
    /// In a file.
    File(PathBuf),
    /// Where the operating system has its own.
    System,
}

/// Name and value.
pub(crate) type CaHeader = (MetadataKey<Ascii>, MetadataValue<Ascii>);

/// What [`Mounted::find`](crate::secrets::Mounted::find) needs to know.
#[derive(Clone, Debug)]
pub(crate) struct MountedConfig {
    pub(crate) folders: Vec<PathBuf>,
    /// Whether a CA is not to be asked even if something is missing.
    pub(crate) only: bool,
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
        if args.file_mounted_certs && not_empty(args.prov_cert.clone()).is_some() {
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
            workload: WorkloadConfig {
                identity,
                lifetime: args.secret_ttl,
                renewal,
            },
            mounted: MountedConfig {
                folders: args.mounted_certs.clone(),
                only: args.file_mounted_certs,
            },
            ca: IstioCaConfig::from_args(&args)?,
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

impl IstioCaConfig {
    fn from_args(args: &Args) -> Result<Option<Self>, ConfigError> {
        let Some(address) = args.ca_addr.clone() else {
            return Ok(None);
        };
        let name = args.ca_server_name.clone();
        let name = name.filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| address.host().to_owned());
        let server_name =
            ServerName::try_from(name.clone()).map_err(|_| ConfigError::ServerName(name))?;
        let provisioned = not_empty(args.prov_cert.clone());
        let roots = match not_empty(args.ca_root.clone()) {
            Some(path) if path.as_os_str() == "SYSTEM" => CaRoots::System,
            Some(path) => CaRoots::File(path),
            None => CaRoots::File(match &provisioned {
                Some(folder) => folder.join("root-cert.pem"),
                None => PathBuf::from("./var/run/secrets/istio/root-cert.pem"),
            }),
        };
        let cluster_id = args.cluster_id.clone().or(args.istio_cluster_id.clone());
        let headers = args.ca_headers.iter().map(|text| parse_header(text));
        Ok(Some(Self {
            address,
            server_name,
            roots,
            token_file: not_empty(Some(args.token_file.clone())),
            provisioned,
            cluster_id: cluster_id.unwrap_or_else(|| "Kubernetes".to_owned()),
            headers: headers.collect::<Result<_, _>>()?,
            // Istio's templates set variables that are not in use to nothing.
            signer: args.cert_signer.clone().filter(|name| !name.is_empty()),
        }))
    }
}

/// Istio's templates set variables that are not in use to nothing.
fn not_empty(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

/// `name=value`, where the value may have more of the sign.
fn parse_header(text: &str) -> Result<CaHeader, ConfigError> {
    let wrong = || ConfigError::Header(text.split('=').next().unwrap_or_default().to_owned());
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    // HTTP/2 has no capitals.
    let name =
        MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()).map_err(|_| wrong())?;
    let value = MetadataValue::try_from(value).map_err(|_| wrong())?;
    Ok((name, value))
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
        assert!(config.output_dir.is_none() && config.ca.unwrap().signer.is_none());
    }

    #[test]
    fn the_host_of_the_address_is_the_expected_name_unless_another_is_given() {
        let name = config(&[]).unwrap().ca.unwrap().server_name;
        assert_eq!(name.to_str(), "ca.example");
        let name = config(&["--ca-server-name", "istiod.istio-system.svc"])
            .unwrap()
            .ca
            .unwrap()
            .server_name;
        assert_eq!(name.to_str(), "istiod.istio-system.svc");
        assert!(config(&["--ca-server-name", "no spaces"]).is_err());
    }

    #[test]
    fn the_roots_of_the_ca_are_found_as_istio_finds_them() {
        let roots = |extra: &[&str]| config(extra).unwrap().ca.unwrap().roots;
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
        let headers = config(&headers).unwrap().ca.unwrap().headers;
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
        let cluster = |extra: &[&str]| config(extra).unwrap().ca.unwrap().cluster_id;
        assert_eq!(cluster(&[]), "Kubernetes");
        assert_eq!(cluster(&["--istio-cluster-id", "east"]), "east");
        let both = ["--istio-cluster-id", "east", "--cluster-id", "west"];
        assert_eq!(cluster(&both), "west");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(config(&["--file-mounted-certs", "--prov-cert", "/etc/certs"]).is_err());
        assert!(config(&["--secret-ttl", "300ms"]).is_err());
        assert!(config(&["--renewal-ratio", "2"]).is_err());
        let args = "sds-agent --ca-addr ca:1 --service-account sa --namespace a/b".split(' ');
        assert!(Config::try_from(Args::try_parse_from(args).unwrap()).is_err());
    }
}
