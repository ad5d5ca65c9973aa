//! The Kubernetes cluster that the server is a part of.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::config::Kubernetes;

mod call;
mod followed;
mod lease;
mod secret_store;
mod secret_watch;
mod watching;

pub(crate) use call::{CallError, call};
pub(crate) use followed::Followed;
#[cfg(test)]
pub(crate) use lease::Standing;
pub(crate) use lease::{Candidate, Leadership};
pub(crate) use secret_store::{CaSecret, SELF_SIGNED_MARK, SecretStore, text_of};
pub(crate) use secret_watch::{Seen, follow as follow_secret};
pub(crate) use watching::watch;

/// How long an API server may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A cluster as we see it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// Has no deadline for a whole call, because watches go on for ever: **whoever calls sets one**.
    pub(crate) client: Client,
    /// Where our Secrets and leases are.
    pub(crate) namespace: String,
    /// What its callers name in `clusterid`.
    pub(crate) id: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("namespace", &self.namespace)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Makes the client. Nobody is asked yet: an API server that is away is found out by those who need it.
    pub(crate) async fn new(config: Kubernetes) -> Result<Self, ClusterError> {
        let mut client = match &config.kubeconfig {
            None => Config::infer().await?,
            Some(path) => {
                let unreadable = |cause| ClusterError::Kubeconfig {
                    path: path.clone(),
                    cause,
                };
                let file = Kubeconfig::read_from(path).map_err(unreadable)?;
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                    .await
                    .map_err(unreadable)?
            }
        };
        client.connect_timeout = Some(CONNECT_DEADLINE);
        Ok(Self {
            client: Client::try_from(client)?,
            namespace: config.namespace,
            id: config.cluster_id,
        })
    }
}

/// Why there is no way to a cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Neither a kubeconfig nor a pod's service account.
    #[error("no way to the API server: {0}")]
    Nowhere(#[from] kube::config::InferConfigError),
    /// The file says nothing that can be meant.
    #[error("kubeconfig {}: {cause}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: kube::config::KubeconfigError,
    },
    /// Its credentials cannot be used.
    #[error("client of the API server: {0}")]
    Client(#[from] kube::Error),
}
