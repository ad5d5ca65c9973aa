//! The clusters whose callers are believed, by the name that callers give.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::cluster::{Cluster, ClusterStatus};

/// Our own cluster, and others that come and go.
#[derive(Debug)]
pub struct Clusters {
    local: Arc<Cluster>,
    /// Other names of clusters, ours among them.
    aliases: BTreeMap<String, String>,
    /// Held for a look-up or one change.
    remote: RwLock<BTreeMap<String, Remote>>,
}

/// One of the others.
#[derive(Debug)]
struct Remote {
    current: Arc<Cluster>,
    /// Takes its place as soon as it knows its pods.
    next: Option<Arc<Cluster>>,
}

impl Remote {
    fn is_next_ready(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.is_synced())
    }
}

/// A caller says that it is in a cluster that nobody has told us of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster {claimed:?} is not known (this is {local}; others: {})", if others.is_empty() { "none" } else { others })]
pub struct UnknownCluster {
    claimed: String,
    local: Arc<str>,
    others: String,
}

/// Two clusters cannot have one name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster alias {alias:?} stands for both {first:?} and {second:?}")]
pub struct AliasError {
    alias: String,
    first: String,
    second: String,
}

impl Clusters {
    /// Our own alone.
    pub fn new(local: Cluster) -> Self {
        Self {
            local: Arc::new(local),
            aliases: BTreeMap::new(),
            remote: RwLock::default(),
        }
    }

    /// With other names: each an alias and the cluster that it stands for.
    ///
    /// # Errors
    /// When one alias stands for two clusters.
    pub fn with_aliases(
        mut self,
        aliases: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, AliasError> {
        for (alias, cluster) in aliases {
            match self.aliases.get(&alias) {
                Some(first) if *first != cluster => {
                    return Err(AliasError {
                        first: first.clone(),
                        alias,
                        second: cluster,
                    });
                }
                _ => _ = self.aliases.insert(alias, cluster),
            }
        }
        Ok(self)
    }

    /// The one that we are a part of.
    pub fn local(&self) -> &Cluster {
        &self.local
    }

    /// The cluster of a caller that gives this name. Who gives none is in ours.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(super) fn find(&self, claimed: Option<&str>) -> Result<Arc<Cluster>, UnknownCluster> {
        let Some(claimed) = claimed else {
            return Ok(Arc::clone(&self.local));
        };
        let named = |name: &str| {
            if *name == **self.local.id() {
                return Some(Arc::clone(&self.local));
            }
            self.remote(name)
        };
        let found = named(claimed).or_else(|| named(self.aliases.get(claimed)?));
        found.ok_or_else(|| {
            let remote = self.remote.read().unwrap_or_else(PoisonError::into_inner);
            let others: Vec<_> = remote.keys().map(String::as_str).collect();
            UnknownCluster {
                claimed: claimed.chars().take(64).collect(),
                local: Arc::clone(self.local.id()),
                others: others.join(", "),
            }
        })
    }

    fn remote(&self, name: &str) -> Option<Arc<Cluster>> {
        {
            let remote = self.remote.read().unwrap_or_else(PoisonError::into_inner);
            let found = remote.get(name)?;
            if !found.is_next_ready() {
                return Some(Arc::clone(&found.current));
            }
        }
        let mut remote = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        let found = remote.get_mut(name)?;
        if found.is_next_ready()
            && let Some(next) = found.next.take()
        {
            tracing::info!(cluster = name, "remote cluster replaced");
            found.current = next;
        }
        Some(Arc::clone(&found.current))
    }

    /// Adds a cluster, or puts it in place of one of the same name once it knows its pods.
    pub(super) fn put(&self, cluster: Cluster) {
        let cluster = Arc::new(cluster);
        let mut remote = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        match remote.get_mut(&**cluster.id()) {
            Some(before) => before.next = Some(cluster),
            None => {
                let entry = Remote {
                    current: Arc::clone(&cluster),
                    next: None,
                };
                remote.insert(cluster.id().to_string(), entry);
            }
        }
    }

    /// From now on nobody is in it.
    pub(super) fn remove(&self, name: &str) {
        let mut remote = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        remote.remove(name);
    }

    /// How it goes with each, ours first.
    pub fn status(&self) -> Vec<ClusterStatus> {
        let remote = self.remote.read().unwrap_or_else(PoisonError::into_inner);
        let others = remote.values().map(|remote| remote.current.status());
        [self.local.status()].into_iter().chain(others).collect()
    }
}

#[cfg(test)]
mod tests;
