//! Who certifies our own listeners where no files are given: whoever certifies the workloads, or a signer of the cluster.

use std::sync::Arc;
use std::time::Duration;

use ca_core::{LocalAuthority, SignError, SubjectName};
use time::OffsetDateTime;

use super::certificate::ServingCertificate;
use super::cluster_signer::ClusterSigner;
use crate::authority::registration::Registration;
use crate::mesh_roots::MeshRoots;

/// Our own CA, the signer that is asked in its place, or one that is asked for the listeners alone.
#[derive(Clone, Debug)]
pub(crate) enum ServingIssuer {
    OwnCa(LocalAuthority),
    Signer(Arc<Registration>),
    Cluster(Arc<ClusterSigner>),
}

impl ServingIssuer {
    /// A new key, certified.
    pub(super) async fn issue(
        &self,
        names: &[SubjectName],
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<ServingCertificate, SignError> {
        match self {
            Self::OwnCa(authority) => ServingCertificate::issue(authority, names, lifetime, now),
            Self::Signer(registration) => {
                let names = names.to_vec();
                let (key, issued) = registration.certify_server(names, lifetime, now).await?;
                Ok(ServingCertificate::issued(key, &issued))
            }
            Self::Cluster(signer) => signer.issue(names.to_vec(), lifetime, now).await,
        }
    }

    /// What members of the mesh are verified with.
    pub(super) fn roots(&self) -> MeshRoots {
        match self {
            Self::OwnCa(authority) => MeshRoots::Own(authority.bundles().clone()),
            Self::Signer(registration) => MeshRoots::Signer(registration.roots()),
            Self::Cluster(signer) => signer.mesh_roots(),
        }
    }

    /// As `PILOT_CERT_PROVIDER` says it, where that has a word for it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::OwnCa(_) => "istiod",
            Self::Signer(_) => "signer",
            Self::Cluster(_) => "kubernetes",
        }
    }
}
