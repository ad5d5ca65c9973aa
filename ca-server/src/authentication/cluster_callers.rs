//! From what is meant about callers in clusters to the parts that follow those clusters.

use std::sync::Arc;

use ca_auth::Authorizer;
use ca_auth::kubernetes::{
    AliasError, Cluster as CallerCluster, ClusterConfig, Clusters, KubernetesAuthenticator,
    NodeProxies, NodeProxiesError, RemoteClusters,
};
use ca_core::TrustDomain;

use crate::config::ClusterCallers as Config;
use crate::kubernetes::Cluster;

/// The clusters whose callers are believed, followed for as long as this is held. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ClusterCallers {
    pub(crate) clusters: Arc<Clusters>,
    /// Where there may be others than ours.
    pub(crate) remote: Option<Arc<RemoteClusters>>,
    node_proxies: Option<NodeProxies>,
}

impl ClusterCallers {
    /// Starts to follow our cluster, and the others if they are wanted. Nobody is waited for.
    pub(crate) fn follow(
        cluster: &Cluster,
        config: Config,
        trust_domain: &TrustDomain,
    ) -> Result<Self, ClusterCallersError> {
        let (accounts, aliases) = (config.node_accounts, config.aliases);
        let judged = ClusterConfig {
            trust_domain: trust_domain.clone(),
            audiences: config.audiences,
            clock_skew: config.clock_skew,
            judgement: config.judgement,
            keys: config.keys,
            review_cache: config.review_cache,
            max_staleness: config.max_staleness,
            knows_pods: !accounts.is_empty(),
        };
        let local = CallerCluster::start(cluster.id.as_str(), &cluster.client, judged.clone());
        let clusters = Arc::new(Clusters::new(local).with_aliases(aliases)?);
        let node_proxies = if accounts.is_empty() {
            None
        } else {
            let (accounts, clusters) = (accounts.iter().map(String::as_str), Arc::clone(&clusters));
            Some(NodeProxies::new(accounts, clusters, trust_domain.clone())?)
        };
        let remote = config.remote.then(|| {
            let (client, namespace) = (&cluster.client, &cluster.namespace);
            let remote = RemoteClusters::start(client, namespace, Arc::clone(&clusters), judged);
            Arc::new(remote)
        });
        Ok(Self {
            clusters,
            remote,
            node_proxies,
        })
    }

    /// What judges their tokens.
    pub(super) fn authenticator(&self) -> KubernetesAuthenticator {
        KubernetesAuthenticator::new(Arc::clone(&self.clusters))
    }

    /// The same authorizer for whom node proxies are known.
    pub(crate) fn authorizer(&self, authorizer: Authorizer) -> Authorizer {
        match &self.node_proxies {
            Some(proxies) => authorizer.with_node_proxies(proxies.clone()),
            None => authorizer,
        }
    }
}

/// Why callers in clusters cannot be judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterCallersError {
    /// Who node proxies are.
    #[error(transparent)]
    NodeProxies(#[from] NodeProxiesError),
    /// What clusters are called.
    #[error(transparent)]
    Alias(#[from] AliasError),
}
