//! Node proxies: callers that ask for the names of the pods on their node, as ztunnel does.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ca_core::{SpiffeId, TrustDomain, format_duration};

use super::clusters::{Clusters, UnknownCluster};
use crate::caller::{Caller, ServiceAccount};

/// Which service accounts are node proxies, and what they may ask for: the name of a service account in our trust domain
/// that a pod on the same node has, as long as that pod has not finished.
#[derive(Clone, Debug)]
pub struct NodeProxies {
    trusted: HashSet<ServiceAccount>,
    clusters: Arc<Clusters>,
    trust_domain: TrustDomain,
}

/// Not a list of service accounts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trusted node account {found:?} is not of the form <namespace>/<service account>")]
pub struct NodeProxiesError {
    found: String,
}

/// Why a node proxy does not get the name that it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeProxyRefusal {
    /// The caller did not show a token of a pod in a cluster: a certificate, for example, does not name a pod.
    #[error("the caller does not show the token of a pod in a cluster")]
    NotAPod,
    /// Its service account is none of those that are trusted.
    #[error("service account {account} is not a trusted node account")]
    NotTrusted {
        /// Its namespace and name.
        account: String,
    },
    /// The name is not one of this mesh.
    #[error("it is not in trust domain {mesh}")]
    ForeignTrustDomain {
        /// Ours.
        mesh: TrustDomain,
    },
    /// The name is not that of a service account.
    #[error("it is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    NotAServiceAccount,
    /// The cluster has been removed in between.
    #[error(transparent)]
    Cluster(#[from] UnknownCluster),
    /// Nothing has been heard of the pods of the cluster yet. Trying again may help.
    #[error("the pods of the cluster are not known yet")]
    NothingKnown,
    /// The API server has been away for too long. Trying again may help.
    #[error("what is known of the pods of the cluster is {} old", format_duration(Duration::from_secs(age.as_secs())))]
    TooOld {
        /// How long ago it was last heard of.
        age: Duration,
    },
    /// There is no such pod, or it is too new. Trying again may help.
    #[error("the pod of the caller is not known")]
    PodUnknown,
    /// The token belongs to an earlier pod of the same name.
    #[error("the pod of the caller has been replaced by another of the same name")]
    PodReplaced,
    /// The pod has another service account than the token.
    #[error("the pod of the caller has another service account")]
    OtherServiceAccount,
    /// Its containers have ended.
    #[error("the pod of the caller has finished")]
    PodFinished,
    /// The pod has not been put on a node.
    #[error("the pod of the caller is on no node")]
    NoNode,
    /// No pod there has this service account, or all that have it have finished.
    #[error("no pod on its node {node} has that service account")]
    NotOnNode {
        /// The node of the caller.
        node: Box<str>,
    },
}

impl NodeProxyRefusal {
    /// Whether the same question may have another answer in a moment.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NothingKnown | Self::TooOld { .. } | Self::PodUnknown
        )
    }
}

impl NodeProxies {
    /// Those of `accounts`, each `<namespace>/<service account>`, in each of the clusters.
    ///
    /// # Errors
    /// When one of them has another form.
    pub fn new<'a>(
        accounts: impl IntoIterator<Item = &'a str>,
        clusters: Arc<Clusters>,
        trust_domain: TrustDomain,
    ) -> Result<Self, NodeProxiesError> {
        let trusted = accounts.into_iter().map(parse_account);
        Ok(Self {
            trusted: trusted.collect::<Result<_, _>>()?,
            clusters,
            trust_domain,
        })
    }

    /// Whether a caller may have `wanted`, which is not its own name.
    pub(crate) fn judge(&self, caller: &Caller, wanted: &SpiffeId) -> Result<(), NodeProxyRefusal> {
        let (Some(account), Some(pod), Some(cluster)) =
            (&caller.service_account, &caller.pod, &caller.cluster)
        else {
            return Err(NodeProxyRefusal::NotAPod);
        };
        if !self.trusted.contains(account) {
            return Err(NodeProxyRefusal::NotTrusted {
                account: format!("{}/{}", account.namespace(), account.name()),
            });
        }
        if !wanted.is_in(&self.trust_domain) {
            return Err(NodeProxyRefusal::ForeignTrustDomain {
                mesh: self.trust_domain.clone(),
            });
        }
        let wanted = wanted
            .as_workload()
            .and_then(|named| ServiceAccount::new(named.namespace, named.service_account).ok());
        let wanted = wanted.ok_or(NodeProxyRefusal::NotAServiceAccount)?;
        let cluster = self.clusters.find(Some(cluster))?;
        cluster.share_a_node(account, pod, &wanted)
    }
}

pub(super) fn parse_account(text: &str) -> Result<ServiceAccount, NodeProxiesError> {
    let parsed = text
        .split_once('/')
        .and_then(|(namespace, name)| ServiceAccount::new(namespace, name).ok());
    parsed.ok_or_else(|| NodeProxiesError { found: text.into() })
}
