//! A signer of the cluster that certifies our own listeners, whoever signs for the workloads.

use std::time::Duration;

use ca_core::{SignError, SubjectName};
use ca_ra::{KubernetesCsrAuthority, KubernetesCsrConfig, SignerNames, SignerRoots, Upkeep};
use time::OffsetDateTime;

use super::certificate::ServingCertificate;
use crate::config::ListenerSigner;
use crate::kubernetes::Cluster;
use crate::mesh_roots::MeshRoots;

/// The signer, and whom the listeners believe: members of the mesh. **What the signer signs for others is no member of it.**
#[derive(Clone, Debug)]
pub(crate) struct ClusterSigner {
    authority: KubernetesCsrAuthority,
    mesh: MeshRoots,
}

impl ClusterSigner {
    /// Asks nobody yet. **The second is to be run.**
    pub(crate) fn new(
        config: ListenerSigner,
        roots: SignerRoots,
        cluster: &Cluster,
        mesh: MeshRoots,
    ) -> (Self, Upkeep) {
        let (authority, upkeep) = KubernetesCsrAuthority::new(KubernetesCsrConfig {
            client: cluster.client.clone(),
            signers: SignerNames::One(config.signer),
            approval: config.approval,
            roots,
            deadline: config.deadline,
        });
        (Self { authority, mesh }, upkeep)
    }

    pub(super) async fn issue(
        &self,
        names: Vec<SubjectName>,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<ServingCertificate, SignError> {
        let certified = self.authority.certify_server(names, lifetime, now);
        let (key, issued) = certified.await?;
        Ok(ServingCertificate::issued(key, &issued))
    }

    pub(super) fn mesh_roots(&self) -> MeshRoots {
        self.mesh.clone()
    }
}
