//! What was typed about callers with service account tokens, and about node proxies.

use std::time::Duration;

use ca_core::parse_duration;

/// Callers in Kubernetes clusters.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Kubernetes: callers")]
pub(crate) struct ClusterCallersArgs {
    /// Where service account tokens are verified: `local`, with the keys of the cluster and a watch of its pods and service
    /// accounts; or `review`, by asking the API server about each.
    #[arg(long, value_name = "WHERE", default_value = "local")]
    pub(crate) kubernetes_tokens: TokensAre,

    /// How long a good answer of the API server about a token is used again; 0s for never.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) kubernetes_review_cache: Duration,

    /// How long callers are judged by what was last known of pods and service accounts when the API server cannot be asked: a
    /// deleted one may get a certificate for this long.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = parse_duration)]
    pub(crate) kubernetes_max_staleness: Duration,

    /// Service accounts of node proxies: each may ask for the names of the pods on its node.
    #[arg(
        long,
        env = "CA_TRUSTED_NODE_ACCOUNTS",
        value_name = "NAMESPACE/ACCOUNT,...",
        value_delimiter = ','
    )]
    pub(crate) ca_trusted_node_accounts: Vec<String>,

    /// Believe callers of other clusters as well: of those whose kubeconfigs are in Secrets of our namespace with the label
    /// istio/multiCluster=true. Whoever may write such a Secret may then be anybody in the mesh.
    #[arg(long)]
    pub(crate) remote_clusters: bool,

    /// Other names that callers give their clusters.
    #[arg(long, value_name = "ALIAS=CLUSTER,...", value_delimiter = ',')]
    pub(crate) cluster_aliases: Vec<String>,
}

/// Where tokens are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TokensAre {
    Local,
    Review,
}
