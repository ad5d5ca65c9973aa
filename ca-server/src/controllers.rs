//! What carries the roots out into the cluster: by the one replica that leads, in objects that everybody reads.

use std::sync::Arc;

use crate::config::{Publish, RootObjects};
use crate::kubernetes::{Cluster, Leadership};
use crate::mesh_roots::MeshRoots;

mod agenda;
mod config_map;
mod config_maps;
mod contents;
mod index;
mod selector;
mod status;
mod trust_bundle;
mod webhooks;

use config_maps::Distributor;
use contents::Contents;
pub use selector::SelectorError;
pub(crate) use selector::parse as parse_selector;
pub(crate) use status::{Objects, PublishStatus, Published};

/// By this name the API server knows which parts of an object we have applied.
const MANAGER: &str = "mesh-ca";

/// Keeps the roots where they are to be, for as long as this process leads.
#[derive(Debug)]
pub(crate) struct Publisher {
    cluster: Cluster,
    what: Publish,
    roots: MeshRoots,
    leadership: Leadership,
    /// By this name one installation knows what it has published.
    name: Arc<str>,
    status: PublishStatus,
}

impl Publisher {
    pub(crate) fn new(
        cluster: Cluster,
        what: Publish,
        roots: MeshRoots,
        (lease, leadership): (&str, Leadership),
    ) -> (Self, PublishStatus) {
        let status = PublishStatus::default();
        let name = format!("{}/{lease}", cluster.namespace).into();
        let publisher = Self {
            cluster,
            what,
            roots,
            leadership,
            name,
            status: status.clone(),
        };
        (publisher, status)
    }

    /// Works for as long as the process.
    pub(crate) async fn run(mut self) {
        loop {
            self.leadership.gained().await;
            let mut leadership = self.leadership.clone();
            tokio::select! {
                () = leadership.lost() => {}
                () = self.publish() => {}
            }
            self.status.nobody_knows();
        }
    }

    /// Watches and writes, until it is dropped.
    async fn publish(&self) {
        let (client, status) = (&self.cluster.client, &self.status);
        let contents = || Contents::new(self.roots.clone());
        let roots = async {
            match self.what.roots.clone() {
                None => {}
                Some(RootObjects::ConfigMaps(config)) => {
                    let distributor =
                        Distributor::new(client.clone(), config, &self.name, status.clone());
                    distributor.run(contents()).await;
                }
                Some(RootObjects::ClusterTrustBundle) => {
                    trust_bundle::run(client.clone(), contents(), status.clone()).await;
                }
            }
        };
        let webhooks = webhooks::run(client, &self.what.webhooks, contents, status);
        tokio::join!(roots, webhooks);
        // Nothing is to be published.
        std::future::pending::<()>().await;
    }
}
