//! Who signs, for those parts of the server that only look at it.

use std::sync::Arc;

use ca_core::{
    BundleStore, CertificateAuthority, KeyCertBundle, LocalAuthority, TrustBundle, TrustDomain,
};
use time::OffsetDateTime;

use super::local::OffloadingAuthority;
use super::registration::Registration;
use super::subordinate::SubordinateAuthorities;
use crate::mesh_roots::MeshRoots;
use crate::report::shown;
use crate::serving::ServingIssuer;

/// Who signs. Cheap to clone; all clones see the same.
#[derive(Clone, Debug)]
pub(crate) enum Signing {
    /// We, with a key of our own.
    Own(BundleStore),
    /// Somebody whom we ask, each time.
    Asked(Arc<Registration>),
}

impl Signing {
    /// What the mesh is to trust.
    pub(crate) fn roots(&self) -> MeshRoots {
        match self {
            Self::Own(bundles) => MeshRoots::Own(bundles.clone()),
            Self::Asked(registration) => MeshRoots::Signer(registration.roots()),
        }
    }

    /// For workloads.
    pub(crate) fn authority(&self) -> Arc<dyn CertificateAuthority> {
        match self {
            Self::Own(bundles) => Arc::new(OffloadingAuthority::new(LocalAuthority::new(
                bundles.clone(),
            ))),
            Self::Asked(registration) => Arc::clone(registration) as Arc<dyn CertificateAuthority>,
        }
    }

    /// For CAs below this one, which only a CA can have.
    pub(crate) fn subordinates(&self, trust_domain: TrustDomain) -> Option<SubordinateAuthorities> {
        match self {
            Self::Own(bundles) => {
                let authority = LocalAuthority::new(bundles.clone());
                Some(SubordinateAuthorities::new(authority, trust_domain))
            }
            Self::Asked(_) => None,
        }
    }

    /// For our own listeners.
    pub(crate) fn serving_issuer(&self) -> ServingIssuer {
        match self {
            Self::Own(bundles) => ServingIssuer::OwnCa(LocalAuthority::new(bundles.clone())),
            Self::Asked(registration) => ServingIssuer::Signer(Arc::clone(registration)),
        }
    }

    /// What we sign with, if we do.
    pub(crate) fn bundle(&self) -> Option<Arc<KeyCertBundle>> {
        match self {
            Self::Own(bundles) => Some(bundles.current()),
            Self::Asked(_) => None,
        }
    }

    /// How many bundles there have been, if they are ours.
    pub(crate) fn generation(&self) -> Option<u64> {
        match self {
            Self::Own(bundles) => Some(bundles.generation()),
            Self::Asked(_) => None,
        }
    }

    /// Why nothing could be signed at `now`, as far as that is known without trying.
    pub(crate) fn obstacle(&self, now: OffsetDateTime) -> Option<String> {
        match self.bundle() {
            Some(bundle) if now >= bundle.not_after() => Some(format!(
                "the signing certificate, or one above it, has expired at {}",
                shown(bundle.not_after())
            )),
            Some(bundle) if now < bundle.not_before() => Some(format!(
                "the signing certificate is not valid before {}",
                shown(bundle.not_before())
            )),
            Some(_) => None,
            None => expired(&self.roots().current(), now),
        }
    }
}

fn expired(roots: &TrustBundle, now: OffsetDateTime) -> Option<String> {
    let end = roots.not_after();
    (now >= end).then(|| format!("the last root of the signer has expired at {}", shown(end)))
}
