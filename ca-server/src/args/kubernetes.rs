//! What was typed about the Kubernetes cluster that the server is a part of.

use std::path::PathBuf;

/// The cluster.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Kubernetes")]
pub(crate) struct KubernetesArgs {
    /// Be a part of a Kubernetes cluster: the CA's key is in a Secret, service account tokens are believed, and roots are
    /// published. Without --kubeconfig the API server is found as by kubectl: $KUBECONFIG, ~/.kube/config, else the pod's
    /// service account.
    #[arg(long)]
    pub(crate) kubernetes: bool,

    /// How to reach the API server.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// What callers of this cluster name in `clusterid`.
    #[arg(
        long,
        env = "CLUSTER_ID",
        value_name = "NAME",
        default_value = "Kubernetes"
    )]
    pub(crate) cluster_id: String,
}
