//! What was typed about a signer that is asked for every certificate.

use std::path::PathBuf;
use std::time::Duration;

use ca_core::parse_duration;

/// A signer in the place of a CA of our own.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Registration authority")]
pub(crate) struct RegistrationArgs {
    /// Have every certificate signed by somebody else: `ISTIOD_RA_KUBERNETES_API` (the certificate API of Kubernetes),
    /// `cert-manager`, or `ISTIOD_RA_ISTIO_API` (the CA at --upstream-ca-addr). Nothing: this server is a CA.
    #[arg(long, env = "EXTERNAL_CA", value_name = "KIND")]
    pub(crate) external_ca: Option<String>,

    /// How long a signer may take for one certificate, approval included.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) signer_timeout: Duration,

    /// Roots (PEM) that what the signer makes must lead to; followed. Default with the certificate API of Kubernetes: Istio's
    /// files, where they are there. Without a file the roots are those that come with the certificates.
    #[arg(long, value_name = "FILE")]
    pub(crate) root_ca_file: Option<PathBuf>,

    /// The roots of one signer: `example.com/a=FILE`, or `Issuer.cert-manager.io/a=FILE`; followed. May be given several
    /// times.
    #[arg(long, value_name = "SIGNER=FILE")]
    pub(crate) signer_root: Vec<String>,

    /// Approve our own requests. Default: true with the certificate API of Kubernetes, as Istio does; false with cert-manager,
    /// which has an approver.
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub(crate) approve_requests: Option<bool>,

    /// The Kubernetes signer for requests that name none, such as `example.com/mesh`.
    #[arg(long, env = "K8S_SIGNER", value_name = "DOMAIN/NAME")]
    pub(crate) k8s_signer: Option<String>,

    /// The domain of the Kubernetes signers that requests name (`CertSigner`). Without it, such a request is an error.
    #[arg(long, env = "CERT_SIGNER_DOMAIN", value_name = "DOMAIN")]
    pub(crate) cert_signer_domain: Option<String>,

    /// Have the issuer of the next three flags sign. Without it, a ConfigMap must say who does.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) issuer_enabled: bool,

    /// The issuer of cert-manager.
    #[arg(long, value_name = "NAME", default_value = "istio-ca")]
    pub(crate) issuer_name: String,

    /// Its kind.
    #[arg(long, value_name = "KIND", default_value = "Issuer")]
    pub(crate) issuer_kind: String,

    /// Its group.
    #[arg(long, value_name = "GROUP", default_value = "cert-manager.io")]
    pub(crate) issuer_group: String,

    /// The ConfigMap that says which issuer signs, in `issuer-name`, `issuer-kind` and `issuer-group`; followed.
    #[arg(long, value_name = "NAME")]
    pub(crate) runtime_issuance_config_map_name: Option<String>,

    /// Its namespace.
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) runtime_issuance_config_map_namespace: Option<String>,

    /// The namespace of the requests to cert-manager.
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    pub(crate) certificate_namespace: String,

    /// Do not delete requests to cert-manager when they are over.
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) preserve_certificate_requests: bool,

    /// More annotations for requests to cert-manager.
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',')]
    pub(crate) certificate_request_additional_annotations: Vec<String>,

    /// With cert-manager, the longest lifetime: whoever asks for more gets this.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub(crate) max_client_certificate_duration: Duration,
}
