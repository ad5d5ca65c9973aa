//! A throw-away CA, for the tests of whoever embeds this crate.

// Tests want a value or an end.
#![expect(
    clippy::expect_used,
    reason = "a test that cannot make its CA has failed"
)]

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::authority::{IssuedChain, SigningRequest};
use crate::bundle::{BundleStore, KeyCertBundle};
use crate::certificate::CertificateChain;
use crate::csr::{Csr, create_csr_pem};
use crate::identity::{SpiffeId, SubjectName, TrustDomain};
use crate::key::{KeyKind, PrivateKey};
use crate::local::LocalAuthority;
use crate::self_signed::RootParams;
use crate::state::AuthorityState;
use crate::trust::TrustBundle;

/// A CA that lives as long as a test.
#[derive(Clone, Debug)]
pub struct TestCa {
    trust_domain: TrustDomain,
    key: PrivateKey,
    authority: LocalAuthority,
}

impl TestCa {
    /// With a P-256 key.
    pub fn new(trust_domain: &str) -> Self {
        Self::with_key(
            trust_domain,
            PrivateKey::generate(KeyKind::EcdsaP256).expect("a key"),
        )
    }

    /// With a key of your choice.
    pub fn with_key(trust_domain: &str, key: PrivateKey) -> Self {
        let root =
            RootParams::new(trust_domain, Duration::from_secs(24 * 3600)).self_sign(&key, now());
        let chain = CertificateChain::new(root.expect("a root"), []);
        let roots = TrustBundle::new([chain.leaf().clone()]).expect("a CA certificate");
        let bundle =
            KeyCertBundle::new(Arc::new(key.clone()), chain, roots, now()).expect("a bundle");
        Self {
            trust_domain: trust_domain.parse().expect("a trust domain"),
            key,
            authority: LocalAuthority::new(BundleStore::new(bundle)),
        }
    }

    /// The roots to trust.
    pub fn roots(&self) -> TrustBundle {
        self.bundles().current().roots().clone()
    }

    /// The roots to trust, as PEM.
    pub fn root_pem(&self) -> String {
        self.roots().to_pem().to_owned()
    }

    /// The cell it signs from.
    pub fn bundles(&self) -> BundleStore {
        self.authority.bundles().clone()
    }

    /// The signer.
    pub fn authority(&self) -> LocalAuthority {
        self.authority.clone()
    }

    /// Its key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// What a store would keep of it.
    pub fn state(&self) -> AuthorityState {
        let bundle = self.bundles().current();
        AuthorityState::new(
            self.key.clone(),
            bundle.chain().clone(),
            bundle.roots().clone(),
        )
    }

    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn id(&self, namespace: &str, service_account: &str) -> SpiffeId {
        SpiffeId::workload(&self.trust_domain, namespace, service_account).expect("a workload name")
    }

    /// Certifies the key of `csr`.
    pub fn issue(
        &self,
        csr: &Csr,
        names: &[SubjectName],
        ttl: Duration,
        now: OffsetDateTime,
    ) -> IssuedChain {
        let request = SigningRequest::new(csr.clone(), names.to_vec(), ttl);
        self.authority.issue(&request, now).expect("a certificate")
    }

    /// A new P-256 key with a certificate for `names`.
    pub fn identity(
        &self,
        names: &[SubjectName],
        ttl: Duration,
        now: OffsetDateTime,
    ) -> (PrivateKey, CertificateChain) {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
        let pem = create_csr_pem(&key, names).expect("a request");
        let csr = Csr::from_pem(pem.as_bytes()).expect("a good request");
        (key, self.issue(&csr, names, ttl, now).chain().clone())
    }

    /// A new key with a certificate of one hour for a workload.
    pub fn workload(
        &self,
        namespace: &str,
        service_account: &str,
    ) -> (PrivateKey, CertificateChain) {
        self.identity(
            &[self.id(namespace, service_account).into()],
            Duration::from_secs(3600),
            now(),
        )
    }
}

/// The time, in whole seconds: tests that meet real partners need the real one.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge: real partners read the real clock"
)]
pub fn now() -> OffsetDateTime {
    crate::local::whole_seconds(OffsetDateTime::now_utc())
}
