//! What is meant about the Kubernetes cluster that the server is a part of.

use std::path::PathBuf;

use crate::args::KubernetesArgs;

/// Istio's own, where nothing says otherwise.
const DEFAULT_NAMESPACE: &str = "istio-system";

/// The cluster.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Where our Secrets and leases are.
    pub(crate) namespace: String,
    pub(crate) cluster_id: String,
}

impl Kubernetes {
    /// `namespace` is that of our pod.
    pub(super) fn new(args: KubernetesArgs, namespace: Option<&str>) -> Option<Self> {
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        args.kubernetes.then(|| Self {
            kubeconfig: args.kubeconfig,
            namespace: namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            cluster_id: args.cluster_id,
        })
    }
}
