//! What a server does for the cluster that it is a part of, beside signing: it stands for election, and publishes roots when
//! it leads.

use crate::config::ClusterRoots;
use crate::controllers::Publisher;
use crate::kubernetes::{Candidate, Cluster, Followed, Leadership};
use crate::mesh_roots::MeshRoots;
use crate::observed::InCluster;

/// The election before the CA is known: it needs to know who leads.
#[derive(Debug)]
pub(crate) struct Election {
    candidate: Candidate,
    pub(crate) leadership: Leadership,
    config: ClusterRoots,
}

/// The parts that run for as long as the server.
#[derive(Debug)]
pub(crate) struct Duties {
    pub(crate) candidate: Candidate,
    pub(crate) publisher: Publisher,
}

impl Election {
    pub(crate) fn new(cluster: &Cluster, config: ClusterRoots) -> Self {
        let (client, namespace) = (cluster.client.clone(), &cluster.namespace);
        let (candidate, leadership) =
            Candidate::new(client, namespace, &config.lease_name, &config.pod_name);
        Self {
            candidate,
            leadership,
            config,
        }
    }

    /// `secret` is the one that holds our CA, if one does.
    pub(crate) fn with_roots(
        self,
        cluster: &Cluster,
        roots: MeshRoots,
        secret: Option<Followed>,
    ) -> (Duties, InCluster) {
        let leadership = self.leadership;
        let election = (self.config.lease_name.as_str(), leadership.clone());
        let (publisher, published) =
            Publisher::new(cluster.clone(), self.config.publish, roots, election);
        let duties = Duties {
            candidate: self.candidate,
            publisher,
        };
        let observed = InCluster {
            lease: self.config.lease_name,
            leadership,
            published,
            secret,
        };
        (duties, observed)
    }
}
