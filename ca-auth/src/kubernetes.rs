//! Callers in Kubernetes clusters, judged by what their API servers say.
//!
//! ```text
//!                       +-- cluster_keys: who signs its tokens
//!  authenticator        |
//!    +-- clusters ----- cluster -- workload_index: what there is      <- follow: one watch for each kind
//!    |     ^            |
//!    |     |            +-- review: asked where the others cannot tell, and remembered by review_cache
//!  node_proxy   remote_clusters: which other clusters there are, by kubeconfig
//! ```
//!
//! Nobody here asks an API server for each request: what is signed is verified with the cluster's published keys, and
//! whether pod and service account are still there is known from a watch. See [`Cluster`] for what happens when an
//! API server is away.

mod authenticator;
mod cluster;
mod cluster_keys;
mod clusters;
mod follow;
mod kubeconfig;
mod node_proxy;
mod remote_clusters;
mod review;
mod review_cache;
#[cfg(test)]
mod scripted;
mod workload_index;
mod workloads;

pub use authenticator::KubernetesAuthenticator;
pub use cluster::{Cluster, ClusterConfig, ClusterStatus, Judgement};
pub use clusters::{AliasError, Clusters, UnknownCluster};
pub use kubeconfig::KubeconfigRefused;
pub use node_proxy::{NodeProxies, NodeProxiesError, NodeProxyRefusal};
pub use remote_clusters::{RemoteClusterStatus, RemoteClusters};
pub use review::{ReviewCounts, ReviewRefusal};
pub use workload_index::IndexStatus;
pub use workloads::{Gone, NotKnown};
