//! What a gateway's flags mean.

use std::path::PathBuf;

use crate::{args::Args, gateway::Namespaces};

/// What [`gateway::run`](crate::gateway::run) needs to know.
#[derive(Clone, Debug)]
pub(crate) struct GatewayConfig {
    pub(crate) namespaces: Namespaces,
    pub(crate) selector: Option<String>,
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl GatewayConfig {
    /// None: there is no gateway.
    pub(super) fn from_args(args: &Args) -> Option<Self> {
        let gateway = &args.gateway;
        gateway.gateway_secrets.then(|| Self {
            namespaces: Namespaces::new(&args.namespace, gateway.gateway_namespace.clone()),
            selector: gateway.gateway_selector.clone(),
            kubeconfig: gateway.kubeconfig.clone(),
        })
    }
}
