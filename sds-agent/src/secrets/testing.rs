//! Secrets for tests.

use std::{sync::Arc, time::Duration};

use ca_core::{
    Csr, IssuedChain, KeyKind, PrivateKey, SpiffeId, SubjectName, TrustBundle, create_csr_pem,
    testing::{TestCa, now},
};
use time::OffsetDateTime;

use super::{Mounted, Publisher, Secrets, Workload, WorkloadSecret};
use crate::metrics::Metrics;

/// Both ends, with nothing mounted.
pub(crate) fn channel() -> (Publisher, Secrets) {
    super::channel(Arc::new(Metrics::new()), Mounted::default())
}

/// A CA and what a workload got from it.
pub(crate) struct Lineage {
    pub(crate) ca: TestCa,
    pub(crate) roots: TrustBundle,
}

impl Lineage {
    pub(crate) fn new() -> Self {
        let ca = TestCa::new("cluster.local");
        Self {
            roots: ca.roots(),
            ca,
        }
    }

    /// The next secret, valid for an hour.
    pub(crate) fn next(&self) -> Arc<WorkloadSecret> {
        let (key, issued) = issue(&self.ca, &[identity().into()], HOUR, now());
        let issued = IssuedChain::new(issued.chain().clone(), self.roots.clone());
        Arc::new(WorkloadSecret::verified(&key, issued, &identity(), now()).unwrap())
    }

    /// The same, with the roots to trust.
    pub(crate) fn workload(&self) -> Workload {
        Workload {
            secret: self.next(),
            roots: self.roots.clone(),
        }
    }

    /// The next secret will come with one more root.
    pub(crate) fn add_root(&mut self) {
        self.roots = self.roots.merge(&TestCa::new("cluster.local").roots());
    }
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn identity() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

/// A new key and what a CA says to it.
pub(crate) fn issue(
    ca: &TestCa,
    names: &[SubjectName],
    lifetime: Duration,
    now: OffsetDateTime,
) -> (PrivateKey, IssuedChain) {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = create_csr_pem(&key, names).unwrap();
    let csr = Csr::from_pem(csr.as_bytes()).unwrap();
    (key, ca.issue(&csr, names, lifetime, now))
}
