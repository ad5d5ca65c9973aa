//! Who is asked for certificates, and how.

use std::{fmt, path::PathBuf};

use ca_core::SpiffeId;
use http::HeaderValue;
use rustls::pki_types::ServerName;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};

use super::{ConfigError, VaultPath, not_empty};
use crate::{
    args::{Args, CaPool, CaProvider, CaTarget, GoogleSubject},
    transport::{Server, ServerAddress},
};

/// One kind of CA, with all that a client of it needs to know.
#[derive(Clone, Debug)]
pub(crate) enum CaConfig {
    Istio(IstioCaConfig),
    Vault(VaultCaConfig),
    Google(GoogleCaConfig),
    Drop(DropConfig),
}

/// What [`IstioCaClient`](crate::ca_client::IstioCaClient) needs to know.
#[derive(Clone, Debug)]
pub(crate) struct IstioCaConfig {
    pub(crate) server: Server,
    /// Without one, the client certificate has to do.
    pub(crate) token_file: Option<PathBuf>,
    /// Where a client certificate may lie.
    pub(crate) provisioned: Option<PathBuf>,
    pub(crate) cluster_id: String,
    pub(crate) signer: Option<String>,
    /// What goes along with each request.
    pub(crate) headers: Vec<CaHeader>,
}

/// Name and value.
pub(crate) type CaHeader = (MetadataKey<Ascii>, MetadataValue<Ascii>);

/// Where the roots are that the CA's own certificate must lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CaRoots {
    /// In a file.
    File(PathBuf),
    /// Where the operating system has its own.
    System,
}

impl CaRoots {
    /// The file, if it is one of ours to follow.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::System => None,
        }
    }
}

/// What [`VaultCaClient`](crate::ca_client::VaultCaClient) needs to know.
#[derive(Clone, Debug)]
pub(crate) struct VaultCaConfig {
    pub(crate) server: Server,
    /// Whom to ask a certificate for: Vault takes the names from beside the request.
    pub(crate) identity: SpiffeId,
    pub(crate) sign: VaultPath,
    /// A token of Vault, or one to log in with.
    pub(crate) token_file: PathBuf,
    pub(crate) login: Option<VaultLogin>,
    pub(crate) namespace: Option<HeaderValue>,
}

/// Where to log in, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct VaultLogin {
    pub(crate) path: VaultPath,
    pub(crate) role: String,
}

/// What [`GoogleCaClient`](crate::ca_client::GoogleCaClient) needs to know.
#[derive(Clone, Debug)]
pub(crate) struct GoogleCaConfig {
    pub(crate) server: Server,
    pub(crate) pool: CaPool,
    pub(crate) subject: GoogleSubject,
    pub(crate) access: GoogleAccess,
}

/// Where an access token comes from.
#[derive(Clone, Debug)]
pub(crate) enum GoogleAccess {
    /// From the machine that we run on.
    Metadata { host: String, port: u16 },
    /// For a token that somebody else gave us.
    Exchange {
        server: Server,
        audience: String,
        token_file: PathBuf,
    },
}

/// What [`DropCaClient`](crate::ca_client::DropCaClient) needs to know.
#[derive(Clone, Debug)]
pub(crate) struct DropConfig {
    pub(crate) folder: PathBuf,
    /// Whether keys are kept there over a restart.
    pub(crate) keep_keys: bool,
}

impl CaConfig {
    pub(super) fn from_args(args: &Args, identity: &SpiffeId) -> Result<Option<Self>, ConfigError> {
        let Some(target) = args.ca_addr.clone() else {
            return Ok(None);
        };
        let provider = args.ca_provider.0;
        // Istio's templates give an address all the same.
        if provider == Some(CaProvider::GkeFiles) {
            return Ok(None);
        }
        Ok(Some(match (provider, target) {
            (None | Some(CaProvider::Istio), CaTarget::Server(address)) => {
                Self::Istio(IstioCaConfig::from_args(args, address)?)
            }
            (Some(CaProvider::Vault), CaTarget::Server(address)) => {
                Self::Vault(VaultCaConfig::from_args(args, address, identity)?)
            }
            (None | Some(CaProvider::Google), CaTarget::Pool(pool)) => {
                Self::Google(GoogleCaConfig::from_args(args, pool)?)
            }
            (None | Some(CaProvider::File), CaTarget::Folder(folder)) => Self::Drop(DropConfig {
                folder,
                keep_keys: args.by_hand.drop_keep_keys,
            }),
            (Some(provider), address) => {
                return Err(ConfigError::Provider { provider, address });
            }
        }))
    }
}

/// Where it is, for people.
impl fmt::Display for CaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Istio(istio) => istio.server.address.fmt(f),
            Self::Vault(vault) => vault.server.address.fmt(f),
            Self::Google(google) => google.pool.fmt(f),
            Self::Drop(drop) => drop.folder.display().fmt(f),
        }
    }
}

impl IstioCaConfig {
    fn from_args(args: &Args, address: ServerAddress) -> Result<Self, ConfigError> {
        let cluster_id = args.cluster_id.clone().or(args.istio_cluster_id.clone());
        let headers = args.ca_headers.iter().map(|text| parse_header(text));
        Ok(Self {
            server: ca_server(args, address, file_roots(args))?,
            token_file: not_empty(Some(args.token_file.clone())),
            provisioned: not_empty(args.prov_cert.clone()),
            cluster_id: cluster_id.unwrap_or_else(|| "Kubernetes".to_owned()),
            headers: headers.collect::<Result<_, _>>()?,
            // Istio's templates set variables that are not in use to nothing.
            signer: some_text(args.cert_signer.as_ref()),
        })
    }
}

impl VaultCaConfig {
    fn from_args(
        args: &Args,
        address: ServerAddress,
        identity: &SpiffeId,
    ) -> Result<Self, ConfigError> {
        let vault = &args.vault;
        let sign = some_text(vault.vault_sign_path.as_ref()).ok_or(ConfigError::NoVaultPath)?;
        let path = some_text(vault.vault_login_path.as_ref());
        let login = match (path, some_text(vault.vault_role.as_ref())) {
            (Some(path), Some(role)) => Some(VaultLogin {
                path: path.parse()?,
                role,
            }),
            (None, None) => None,
            _ => return Err(ConfigError::HalfALogin),
        };
        let namespace = some_text(vault.vault_namespace.as_ref());
        let namespace = namespace.map(|name| {
            HeaderValue::from_str(&name).map_err(|_| ConfigError::VaultNamespace(name))
        });
        Ok(Self {
            server: ca_server(args, address, file_roots(args))?,
            identity: identity.clone(),
            sign: sign.parse()?,
            token_file: needed_token_file(args)?,
            login,
            namespace: namespace.transpose()?,
        })
    }
}

impl GoogleCaConfig {
    fn from_args(args: &Args, pool: CaPool) -> Result<Self, ConfigError> {
        let google = &args.google;
        let roots = named_roots(args).unwrap_or(CaRoots::System);
        let access = match some_text(google.sts_audience.as_ref()) {
            Some(audience) => GoogleAccess::Exchange {
                server: server(google.sts_addr.clone(), None, roots.clone())?,
                audience,
                token_file: needed_token_file(args)?,
            },
            None => metadata_server(&google.metadata_host)?,
        };
        Ok(Self {
            server: ca_server(args, google.google_addr.clone(), roots)?,
            pool,
            subject: google.google_subject,
            access,
        })
    }
}

fn metadata_server(text: &str) -> Result<GoogleAccess, ConfigError> {
    let wrong = || ConfigError::MetadataHost(text.to_owned());
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (text, 80),
    };
    let is_host = |c: u8| c.is_ascii_alphanumeric() || b"-.".contains(&c);
    if host.is_empty() || !host.bytes().all(is_host) {
        return Err(wrong());
    }
    Ok(GoogleAccess::Metadata {
        host: host.to_owned(),
        port,
    })
}

fn needed_token_file(args: &Args) -> Result<PathBuf, ConfigError> {
    not_empty(Some(args.token_file.clone())).ok_or(ConfigError::NoTokenFile)
}

/// The CA's server, which may go by another name.
fn ca_server(args: &Args, address: ServerAddress, roots: CaRoots) -> Result<Server, ConfigError> {
    server(address, some_text(args.ca_server_name.as_ref()), roots)
}

fn server(
    address: ServerAddress,
    name: Option<String>,
    roots: CaRoots,
) -> Result<Server, ConfigError> {
    let name = name.unwrap_or_else(|| address.host().to_owned());
    let name = ServerName::try_from(name.clone()).map_err(|_| ConfigError::ServerName(name))?;
    Ok(Server {
        address,
        name,
        roots,
    })
}

fn named_roots(args: &Args) -> Option<CaRoots> {
    not_empty(args.ca_root.clone()).map(|path| {
        if path.as_os_str() == "SYSTEM" {
            CaRoots::System
        } else {
            CaRoots::File(path)
        }
    })
}

/// Where Istio's agent looks.
fn file_roots(args: &Args) -> CaRoots {
    named_roots(args).unwrap_or_else(|| {
        CaRoots::File(match not_empty(args.prov_cert.clone()) {
            Some(folder) => folder.join("root-cert.pem"),
            None => PathBuf::from("./var/run/secrets/istio/root-cert.pem"),
        })
    })
}

fn some_text(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::Config;

    fn ca(flags: &str) -> Result<CaConfig, ConfigError> {
        let flags = format!("sds-agent --namespace ns --service-account sa {flags}");
        let args = Args::try_parse_from(flags.split(' ')).unwrap();
        Config::try_from(args).map(|config| config.ca.unwrap())
    }

    #[test]
    fn address_and_provider_choose_the_client() {
        const POOL: &str = "--ca-addr projects/p/locations/l/caPools/mesh";
        const VAULT: &str = "--ca-addr vault:8200 --ca-provider Vault";
        let istio = "--ca-addr ca:15012 --ca-provider Citadel";
        assert!(matches!(ca(istio), Ok(CaConfig::Istio(_))));
        assert!(matches!(ca(POOL), Ok(CaConfig::Google(_))));
        assert!(matches!(
            ca("--ca-addr file:///drop"),
            Ok(CaConfig::Drop(_))
        ));
        let vault = format!("{VAULT} --vault-sign-path pki/sign/mesh");
        assert!(matches!(ca(&vault), Ok(CaConfig::Vault(_))));
        for (wrong, reason) in [
            (VAULT, "--vault-sign-path is needed"),
            (&format!("{vault} --vault-role mesh"), "go together"),
            (&format!("{POOL} --ca-provider Vault"), "is not reached at"),
            ("--ca-addr ca:1 --ca-provider file", "is not reached at"),
            (&format!("{POOL} --metadata-host a/b"), "metadata server"),
            (&format!("{POOL} --metadata-host a:b"), "metadata server"),
        ] {
            let error = ca(wrong).unwrap_err().to_string();
            assert!(error.contains(reason), "{wrong}: {error}");
        }
    }

    #[test]
    fn google_is_known_by_the_roots_of_the_system() {
        let Ok(CaConfig::Google(google)) =
            ca("--ca-addr projects/p/locations/l/caPools/mesh --sts-audience //iam/x")
        else {
            panic!("Google");
        };
        assert_eq!(google.server.roots, CaRoots::System);
        assert_eq!(google.server.address.host(), "privateca.googleapis.com");
        let GoogleAccess::Exchange { server, .. } = google.access else {
            panic!("an exchange");
        };
        assert_eq!(server.address.host(), "sts.googleapis.com");
    }
}
