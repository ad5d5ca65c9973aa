//! Other clusters, by kubeconfigs in Secrets: added, changed and removed while we run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

use super::cluster::{Cluster, ClusterConfig};
use super::clusters::Clusters;
use super::follow::{News, follow};
use super::kubeconfig::{self, KubeconfigRefused};

/// Follows the Secrets of a namespace that have Istio's label for them. Each key of such a Secret is the name of a cluster,
/// and its value a kubeconfig. Ends with the handle.
#[derive(Debug)]
pub struct RemoteClusters {
    status: watch::Receiver<Vec<RemoteClusterStatus>>,
    tasks: [AbortHandle; 2],
}

/// How it goes with one key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteClusterStatus {
    /// The name of the cluster.
    pub id: String,
    /// Which Secret says so.
    pub secret: String,
    /// Why what the Secret says now is not used, if so: what it said before is.
    pub failure: Option<String>,
}

impl RemoteClusters {
    /// The label that makes a Secret one of these.
    pub const LABEL: &'static str = "istio/multiCluster=true";

    /// Adds to `clusters` what the Secrets of `namespace` say, each cluster judged by `config`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(
        client: &Client,
        namespace: &str,
        clusters: Arc<Clusters>,
        config: ClusterConfig,
    ) -> Self {
        let (sender, status) = watch::channel(Vec::new());
        let (news, mut inbox) = mpsc::unbounded_channel();
        let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
        let following = tokio::spawn(async move {
            follow(secrets, Some(Self::LABEL), |what| {
                // The other end lives as long as we do.
                let _ = news.send(what);
            })
            .await;
        });
        let mut keeper = Keeper {
            clusters,
            config,
            entries: BTreeMap::new(),
            trouble: None,
        };
        let keeping = tokio::spawn(async move {
            while let Some(news) = inbox.recv().await {
                keeper.hear(news).await;
                sender.send_replace(keeper.status());
            }
        });
        Self {
            status,
            tasks: [following.abort_handle(), keeping.abort_handle()],
        }
    }

    /// How it goes with each.
    pub fn status(&self) -> Vec<RemoteClusterStatus> {
        self.status.borrow().clone()
    }
}

impl Drop for RemoteClusters {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Owns what the Secrets have said.
struct Keeper {
    clusters: Arc<Clusters>,
    config: ClusterConfig,
    /// By Secret, then by cluster.
    entries: BTreeMap<String, BTreeMap<String, Entry>>,
    trouble: Option<String>,
}

/// What a key of a Secret has said.
#[derive(Default)]
struct Entry {
    /// Of what was last looked at.
    digest: Vec<u8>,
    /// Whether a cluster came of it, now or before.
    is_used: bool,
    failure: Option<String>,
    /// What is not used only because another Secret has a cluster of this name, for when that has gone.
    waiting: Option<Zeroizing<Vec<u8>>>,
}

impl Keeper {
    async fn hear(&mut self, news: News<Secret>) {
        match news {
            News::All(all) => {
                let names: Vec<_> = all.iter().map(Secret::name_any).collect();
                let gone: Vec<_> = self
                    .entries
                    .keys()
                    .filter(|name| !names.contains(name))
                    .cloned()
                    .collect();
                gone.iter().for_each(|name| self.forget_secret(name));
                self.retry_waiting().await;
                for secret in all {
                    self.take(secret).await;
                }
                self.found();
            }
            News::Applied(secret) => self.take(secret).await,
            News::Deleted(secret) => {
                self.forget_secret(&secret.name_any());
                self.retry_waiting().await;
            }
            News::Alive => self.found(),
            News::Lost(reason) => {
                if self.trouble.as_ref() != Some(&reason) {
                    tracing::warn!("Secrets of remote clusters cannot be watched: {reason}");
                }
                self.trouble = Some(reason);
            }
        }
    }

    fn found(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!("Secrets of remote clusters are watched again");
        }
    }

    fn forget_secret(&mut self, secret: &str) {
        let entries = self.entries.remove(secret).unwrap_or_default();
        for (id, entry) in entries {
            self.forget(secret, &id, &entry);
        }
    }

    fn forget(&self, secret: &str, id: &str, entry: &Entry) {
        if entry.is_used {
            self.clusters.remove(id);
            tracing::info!(cluster = id, secret, "remote cluster removed");
        }
    }

    async fn take(&mut self, secret: Secret) {
        let name = secret.name_any();
        let data = secret.data.unwrap_or_default();
        let mut entries = self.entries.remove(&name).unwrap_or_default();
        let (kept, gone) = entries
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(id, _)| data.contains_key(id));
        entries = kept;
        for (id, entry) in &gone {
            self.forget(&name, id, entry);
        }
        for (id, kubeconfig) in data {
            let entry = entries.entry(id.clone()).or_default();
            self.take_one(&name, &id, entry, Zeroizing::new(kubeconfig.0))
                .await;
        }
        self.put_back(name, entries);
        if !gone.is_empty() {
            self.retry_waiting().await;
        }
    }

    async fn retry_waiting(&mut self) {
        let names: Vec<_> = self.entries.keys().cloned().collect();
        for name in names {
            let mut entries = self.entries.remove(&name).unwrap_or_default();
            for (id, entry) in &mut entries {
                if let Some(kubeconfig) = entry.waiting.take() {
                    self.take_one(&name, id, entry, kubeconfig).await;
                }
            }
            self.put_back(name, entries);
        }
    }

    fn put_back(&mut self, secret: String, entries: BTreeMap<String, Entry>) {
        if !entries.is_empty() {
            self.entries.insert(secret, entries);
        }
    }

    async fn take_one(
        &self,
        secret: &str,
        id: &str,
        entry: &mut Entry,
        kubeconfig: Zeroizing<Vec<u8>>,
    ) {
        let digest = ring::digest::digest(&ring::digest::SHA256, &kubeconfig);
        let is_new = entry.digest != digest.as_ref();
        if !is_new && entry.failure.is_none() {
            return;
        }
        entry.digest = digest.as_ref().to_vec();
        entry.waiting = None;
        match self.start(secret, id, &kubeconfig).await {
            Ok(cluster) => {
                self.clusters.put(cluster);
                let what = if entry.is_used { "changed" } else { "added" };
                tracing::info!(cluster = id, secret, "remote cluster {what}");
                entry.is_used = true;
                entry.failure = None;
            }
            Err(error) => {
                if matches!(error, NotTaken::Twice(_)) {
                    entry.waiting = Some(kubeconfig);
                }
                if is_new {
                    tracing::error!(cluster = id, secret, "remote cluster not taken: {error}");
                }
                entry.failure = Some(error.to_string());
            }
        }
    }

    async fn start(&self, secret: &str, id: &str, kubeconfig: &[u8]) -> Result<Cluster, NotTaken> {
        if *id == **self.clusters.local().id() {
            return Err(NotTaken::Local);
        }
        let holds = |entries: &BTreeMap<String, Entry>| entries.get(id).is_some_and(|e| e.is_used);
        let mut others = self.entries.iter().filter(|(name, _)| *name != secret);
        if let Some((other, _)) = others.find(|(_, entries)| holds(entries)) {
            return Err(NotTaken::Twice(other.clone()));
        }
        let mut config = kubeconfig::read(kubeconfig).await?;
        config.connect_timeout = Some(CONNECT_DEADLINE);
        // The library would ask again where the answer is 429, 503 or 504, in the end minutes apart; we know better when.
        config.default_retry = false;
        let client = Client::try_from(config);
        let client = client.map_err(|cause| KubeconfigRefused::Client(Box::new(cause)))?;
        Ok(Cluster::start(id, &client, self.config.clone()))
    }

    fn status(&self) -> Vec<RemoteClusterStatus> {
        let all = self.entries.iter();
        all.flat_map(|(secret, entries)| {
            entries.iter().map(|(id, entry)| RemoteClusterStatus {
                id: id.clone(),
                secret: secret.clone(),
                failure: entry.failure.clone(),
            })
        })
        .collect()
    }
}

/// Why no cluster comes of a key of a Secret.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("this is the name of the cluster that we are in")]
    Local,
    #[error("Secret {0} has a cluster of this name too")]
    Twice(String),
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] KubeconfigRefused),
}

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
