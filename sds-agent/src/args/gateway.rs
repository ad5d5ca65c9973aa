//! Flags of an ingress gateway.

use std::path::PathBuf;

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser as _},
};

/// Which Secrets of the cluster are served. Whoever reaches the socket gets them.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Ingress gateways")]
pub struct GatewayArgs {
    /// Serve Secrets of the workload's namespace, by the names that gateways have for them: `kubernetes://<name>`,
    /// `kubernetes://<namespace>/<name>`, `kubernetes-gateway://<namespace>/<name>`, and the name alone.
    #[arg(long)]
    pub gateway_secrets: bool,

    /// Another namespace whose Secrets are served, to the names of the Gateway API only: `kubernetes-gateway://`; may be repeated.
    #[arg(
        long,
        value_name = "NAMESPACE",
        value_delimiter = ',',
        requires = "gateway_secrets"
    )]
    pub gateway_namespace: Vec<String>,

    /// Labels of the Secrets that count, as Kubernetes writes them [default: all].
    #[arg(long, value_name = "SELECTOR", requires = "gateway_secrets")]
    pub gateway_selector: Option<String>,

    /// How the API server is reached [default: as a pod does].
    #[arg(
        long,
        value_name = "FILE",
        requires = "gateway_secrets",
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub kubeconfig: Option<PathBuf>,
}
