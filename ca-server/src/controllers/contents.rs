//! What is published: texts that change with the CA.

use std::sync::Arc;

use crate::mesh_roots::{MeshRoots, RootChanges};

/// The roots as they are now, and the next time that they change.
#[derive(Debug)]
pub(super) struct Contents {
    source: MeshRoots,
    changes: RootChanges,
}

impl Contents {
    pub(super) fn new(source: MeshRoots) -> Self {
        let changes = source.subscribe();
        Self { source, changes }
    }

    pub(super) fn roots(&self) -> Arc<str> {
        self.source.current().to_pem().into()
    }

    pub(super) fn revocation_lists(&self) -> Option<Arc<str>> {
        let lists = self.source.revocation_lists()?;
        Some(lists.to_pem().into())
    }

    /// Waits until they may say something else.
    pub(super) async fn changed(&mut self) {
        self.changes.changed().await;
    }
}
