//! Flags of the CAs that are not Istio's kind.

use clap::{Args, ValueEnum};

use crate::transport::ServerAddress;

/// A kind of CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaProvider {
    /// `istio.v1.auth.IstioCertificateService`.
    Istio,
    /// The PKI engine of Vault or `OpenBao`.
    Vault,
    /// Google's Certificate Authority Service.
    Google,
    /// A folder.
    File,
    /// Nobody: Google's Kubernetes Engine mounts certificates that it keeps fresh.
    GkeFiles,
}

/// By Istio's names, in any case. Nothing at all, which is how Istio's templates leave it out, is no choice.
pub(super) fn parse_provider(text: &str) -> Result<Choice, String> {
    Ok(Choice(match text.to_ascii_lowercase().as_str() {
        "" => None,
        "citadel" | "istio" => Some(CaProvider::Istio),
        "vault" | "openbao" => Some(CaProvider::Vault),
        "googlecas" => Some(CaProvider::Google),
        "file" => Some(CaProvider::File),
        "gkeworkloadcertificate" => Some(CaProvider::GkeFiles),
        _ => {
            let known = "known are Citadel, Vault, GoogleCAS, GkeWorkloadCertificate and file";
            return Err(known.to_owned());
        }
    }))
}

/// What was chosen, if anything was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice(pub Option<CaProvider>);

/// How Vault or `OpenBao` is asked. What is in the token file is its token, or what to log in with.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Vault and OpenBao")]
pub struct VaultArgs {
    /// Path that signs: `<mount>/sign/<role>` or `<mount>/sign-verbatim/<role>`.
    #[arg(long, env = "VAULT_SIGN_CSR_PATH", value_name = "PATH")]
    pub vault_sign_path: Option<String>,

    /// Path to log in at with the token, as Kubernetes and JWT authentication have it: `auth/<mount>/login`
    /// [default: the token file holds a token of Vault itself].
    #[arg(long, env = "VAULT_AUTH_PATH", value_name = "PATH")]
    pub vault_login_path: Option<String>,

    /// Role to log in as.
    #[arg(long, env = "VAULT_ROLE", value_name = "NAME")]
    pub vault_role: Option<String>,

    /// Namespace of the mounts.
    #[arg(long, env = "VAULT_NAMESPACE", value_name = "NAME")]
    pub vault_namespace: Option<String>,
}

/// How Google is asked.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Google Certificate Authority Service")]
pub struct GoogleArgs {
    /// Where the service is.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "privateca.googleapis.com:443"
    )]
    pub google_addr: ServerAddress,

    /// Who the certificate is for: the caller, as Google knows it, or whom the request names.
    #[arg(long, value_name = "MODE", default_value = "reflected")]
    pub google_subject: GoogleSubject,

    /// Provider of a workload identity pool, such as
    /// `//iam.googleapis.com/projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>`, at
    /// which the token is exchanged for an access token [default: the metadata server gives one].
    #[arg(long, value_name = "AUDIENCE")]
    pub sts_audience: Option<String>,

    /// Where tokens are exchanged.
    #[arg(long, value_name = "ADDRESS", default_value = "sts.googleapis.com:443")]
    pub sts_addr: ServerAddress,

    /// Host of the metadata server, with a port if it is not 80.
    #[arg(
        long,
        env = "GCE_METADATA_HOST",
        value_name = "HOST",
        default_value = "metadata.google.internal"
    )]
    pub metadata_host: String,
}

/// Whose names Google puts into a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GoogleSubject {
    /// The SPIFFE ID under which Google knows the caller; needs no right but that to ask for oneself.
    Reflected,
    /// The names in the request, as far as the pool's policy lets them.
    Request,
}

/// How certificates are exchanged by hand, in the folder that the address names.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Certificates by hand")]
pub struct DropArgs {
    /// Keep the keys there too, readable for the agent's user alone, so that they survive a restart [default: in memory only].
    #[arg(long)]
    pub drop_keep_keys: bool,
}
