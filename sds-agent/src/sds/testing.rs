//! Secrets that change when a test says so.

use crate::{
    clock,
    secrets::{
        Publisher, Secrets, Workload,
        testing::{self, Lineage},
    },
};

/// A shelf, and who puts things on it.
pub(super) struct Stage {
    pub(super) lineage: Lineage,
    pub(super) secrets: Secrets,
    pub(super) workload: Option<Workload>,
    publisher: Publisher,
}

impl Stage {
    /// Nothing is there yet.
    pub(super) fn new() -> Self {
        let (publisher, secrets) = testing::channel();
        Self {
            lineage: Lineage::new(),
            secrets,
            workload: None,
            publisher,
        }
    }

    /// There is a new certificate, and new roots if the lineage has some.
    pub(super) fn rotate(&mut self) {
        let workload = self.lineage.workload();
        self.publisher.publish(workload.clone(), clock::now());
        self.workload = Some(workload);
    }
}
