//! The roots that the mesh is to trust, wherever they come from: of our own CA, or of a signer that we ask.

use ca_core::{BundleStore, RevocationLists, Subscription, TrustBundle};
use tokio::sync::watch;

/// What is to be trusted now. Cheap to clone; all clones see the same.
#[derive(Clone, Debug)]
pub(crate) enum MeshRoots {
    /// They change with the bundle that we sign from.
    Own(BundleStore),
    /// Somebody else signs.
    Signer(watch::Receiver<TrustBundle>),
}

impl MeshRoots {
    pub(crate) fn current(&self) -> TrustBundle {
        match self {
            Self::Own(bundles) => bundles.current().roots().clone(),
            Self::Signer(roots) => roots.borrow().clone(),
        }
    }

    /// What is revoked below them, as far as our own CA says so.
    pub(crate) fn revocation_lists(&self) -> Option<RevocationLists> {
        match self {
            Self::Own(bundles) => bundles.current().revocation_lists().cloned(),
            Self::Signer(_) => None,
        }
    }

    /// Follows changes from here on.
    pub(crate) fn subscribe(&self) -> RootChanges {
        match self {
            Self::Own(bundles) => RootChanges::Own(bundles.subscribe()),
            Self::Signer(roots) => {
                let mut roots = roots.clone();
                roots.mark_unchanged();
                RootChanges::Signer(roots)
            }
        }
    }
}

/// A reader that wants to know of each change.
#[derive(Debug)]
pub(crate) enum RootChanges {
    Own(Subscription),
    Signer(watch::Receiver<TrustBundle>),
}

impl RootChanges {
    /// Waits until they may have changed. **They may also be the same**: a bundle is replaced for other reasons too.
    pub(crate) async fn changed(&mut self) -> TrustBundle {
        match self {
            Self::Own(bundles) => bundles.changed().await.roots().clone(),
            Self::Signer(roots) => {
                if roots.changed().await.is_err() {
                    // Whoever would tell is gone: at the end of the process.
                    std::future::pending::<()>().await;
                }
                roots.borrow_and_update().clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ca_core::testing::TestCa;

    use super::*;

    #[tokio::test]
    async fn changes_are_told_whoever_signs() {
        let (old, new) = (TestCa::new("old"), TestCa::new("new"));
        let bundles = old.bundles();
        let own = MeshRoots::Own(bundles.clone());
        let (sender, receiver) = watch::channel(old.roots());
        let signer = MeshRoots::Signer(receiver);
        for roots in [&own, &signer] {
            assert_eq!(roots.current(), old.roots());
        }
        let (mut own_changes, mut signer_changes) = (own.subscribe(), signer.subscribe());
        bundles.replace((*new.bundles().current()).clone());
        sender.send_replace(new.roots());
        assert_eq!(own_changes.changed().await, new.roots());
        assert_eq!(signer_changes.changed().await, new.roots());
        assert_eq!(
            (own.current(), signer.current()),
            (new.roots(), new.roots())
        );
    }
}
