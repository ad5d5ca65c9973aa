//! Certificates that an ingress gateway shows, from Secrets of its cluster.
//!
//! One watch for each namespace tells of every Secret; of those only what could be served is kept, as it came. What a client
//! asks for is judged then, and again with each change: what is broken, expired or does not fit together is not served, the last
//! good value stays, and the reason is shown. A Secret that is deleted is served to nobody new, and nobody is told: clients
//! keep what they have.

mod contents;
mod credentials;
mod judge;
mod namespaces;
mod watch;

#[cfg(test)]
mod testing;

use std::{path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use credentials::{Credentials, FollowingCredential};
pub(crate) use namespaces::Namespaces;

use crate::config::GatewayConfig;

/// How long an API server may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long it may say nothing at all: longer than a watch stays open.
const SILENCE: Duration = Duration::from_secs(watch::WATCH_SECONDS as u64 + 10);

/// A client of the API server that the configuration names. Nobody is asked yet: one that is away may come.
///
/// # Errors
///
/// When there is nothing that says where it is, or how it is talked to.
pub(crate) async fn client(config: &GatewayConfig) -> Result<Client, GatewayError> {
    let mut client = match &config.kubeconfig {
        None => Config::incluster()?,
        Some(path) => {
            let unusable = |cause| GatewayError::Kubeconfig {
                path: path.clone(),
                cause,
            };
            let file = Kubeconfig::read_from(path).map_err(unusable)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(unusable)?
        }
    };
    client.connect_timeout = Some(CONNECT_DEADLINE);
    client.read_timeout = Some(SILENCE);
    client.reset_reader_on_write = true;
    // The library would ask again by itself where the answer is 429, 503 or 504, in the end minutes apart, and nobody would
    // see that the watch fails.
    client.default_retry = false;
    Ok(Client::try_from(client)?)
}

/// Keeps the credentials until `stop`.
pub(crate) async fn run(
    client: Client,
    credentials: Credentials,
    selector: Option<String>,
    stop: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    for namespace in credentials.namespaces().all() {
        let (client, credentials) = (client.clone(), credentials.clone());
        tasks.spawn(watch::follow(
            client,
            namespace,
            selector.clone(),
            credentials,
        ));
    }
    tasks.spawn(credentials.judge_again_when_due());
    tokio::select! {
        () = stop.cancelled() => {}
        // None of them ends by itself: an agent without one would be half an agent.
        _ = tasks.join_next() => {}
    }
}

/// Why there is no way to the cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// Not in a pod, or without a service account.
    #[error("no way to the API server: not in a pod, and no --kubeconfig")]
    Nowhere(#[from] kube::config::InClusterError),
    /// The file says nothing that can be meant.
    #[error("kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: kube::config::KubeconfigError,
    },
    /// Its credentials cannot be used.
    #[error("client of the API server")]
    Client(#[from] kube::Error),
}
