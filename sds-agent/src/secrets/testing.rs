//! Secrets for tests.

use std::{sync::Arc, time::Duration};

use ca_core::{
    Csr, IssuedChain, KeyKind, PrivateKey, SpiffeId, SubjectName, TrustBundle, create_csr_pem,
    testing::{TestCa, now},
};
use time::OffsetDateTime;

use super::WorkloadSecret;

/// One lineage of secrets: each continues the numbering of the one before.
pub(crate) struct Lineage {
    pub(crate) ca: TestCa,
    pub(crate) roots: TrustBundle,
    latest: Option<Arc<WorkloadSecret>>,
}

impl Lineage {
    pub(crate) fn new() -> Self {
        let ca = TestCa::new("cluster.local");
        Self {
            roots: ca.roots(),
            ca,
            latest: None,
        }
    }

    /// The next secret, valid for an hour.
    pub(crate) fn next(&mut self) -> Arc<WorkloadSecret> {
        let (key, issued) = issue(&self.ca, &[identity().into()], HOUR, now());
        let issued = IssuedChain::new(issued.chain().clone(), self.roots.clone());
        let previous = self.latest.as_deref();
        let secret = WorkloadSecret::verified(&key, issued, &identity(), previous, now());
        let secret = Arc::new(secret.unwrap());
        self.latest = Some(Arc::clone(&secret));
        secret
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
