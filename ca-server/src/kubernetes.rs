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
        let client = match &config.kubeconfig {
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
        Ok(Self {
            client: Client::try_from(bounded(client))?,
            namespace: config.namespace,
            id: config.cluster_id,
        })
    }
}

/// With ends where the library has none.
fn bounded(mut config: Config) -> Config {
    config.connect_timeout = Some(CONNECT_DEADLINE);
    // Who lists or opens a watch over a connection that is gone without a word would wait for ever.
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    // It would ask again where the answer is 429, 503 or 504, fifteen times and in the end minutes apart. Everybody here has a
    // deadline and a back-off, and some have something better to do than to wait.
    config.default_retry = false;
    config
}

/// How long an API server may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long it may say nothing: longer than any watch is open.
const SILENCE: Duration = Duration::from_secs(90);

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::api::core::v1::Secret;
    use kube::Api;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Says to everybody that it is too busy, and to come back in ten minutes; and counts them.
    async fn busy(listener: TcpListener, asked: Arc<AtomicUsize>) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = Arc::clone(&asked);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let status =
                        r#"{"kind":"Status","status":"Failure","code":503,"message":"busy"}"#;
                    let head = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 600\r\ncontent-type: application/json";
                    let answer =
                        format!("{head}\r\ncontent-length: {}\r\n\r\n{status}", status.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    }

    #[tokio::test]
    async fn an_api_server_that_says_no_is_believed_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let text = format!(
            "{{clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}], contexts: [{{name: c, context: {{cluster: c, \
             user: u}}}}], users: [{{name: u, user: {{}}}}], current-context: c}}",
            listener.local_addr().unwrap()
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        tokio::spawn(busy(listener, Arc::clone(&asked)));
        let cluster = Cluster::new(Kubernetes {
            kubeconfig: Some(kubeconfig),
            namespace: "mesh".into(),
            cluster_id: "here".into(),
        });
        let cluster = cluster.await.unwrap();
        let api = Api::<Secret>::namespaced(cluster.client, "mesh");
        let error = call(api.get_opt("cacerts")).await.unwrap_err();
        assert_eq!(error.to_string(), "busy (503)");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
