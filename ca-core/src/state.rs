//! The state of a CA that holds its own key: what a store keeps, stages of a root rotation included.

use std::sync::Arc;

use time::OffsetDateTime;

use crate::bundle::{BundleError, KeyCertBundle};
use crate::certificate::{Certificate, CertificateChain};
use crate::key::PrivateKey;
use crate::rotation::Rotation;
use crate::trust::TrustBundle;

mod files;

pub use files::StateFileError;

/// Key, certificates and roots of a CA, and where it stands in the replacement of its root.
#[derive(Clone, Debug)]
pub struct AuthorityState {
    pub(crate) key: PrivateKey,
    pub(crate) chain: CertificateChain,
    pub(crate) roots: TrustBundle,
    pub(crate) rotation: Rotation,
}

impl AuthorityState {
    /// `chain` starts with the certificate of `key`.
    pub fn new(key: PrivateKey, chain: CertificateChain, roots: TrustBundle) -> Self {
        Self {
            key,
            chain,
            roots,
            rotation: Rotation::Steady,
        }
    }

    /// The same CA at another place of a rotation; for implementations of [`crate::AuthorityStore`].
    #[must_use]
    pub fn with_rotation(self, rotation: Rotation) -> Self {
        Self { rotation, ..self }
    }

    /// Key and certificates as a verified bundle.
    ///
    /// # Errors
    /// See [`KeyCertBundle::new`].
    pub fn bundle(&self, now: OffsetDateTime) -> Result<KeyCertBundle, BundleError> {
        KeyCertBundle::new(
            Arc::new(self.key.clone()),
            self.chain.clone(),
            self.roots.clone(),
            now,
        )
    }

    /// The signing key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The signing certificate and what leads from it to a root.
    pub fn chain(&self) -> &CertificateChain {
        &self.chain
    }

    /// The certificate of the signing key.
    pub fn signing_certificate(&self) -> &Certificate {
        self.chain.leaf()
    }

    /// The roots to trust.
    pub fn roots(&self) -> &TrustBundle {
        &self.roots
    }

    /// Where it stands in the replacement of its root.
    pub fn rotation(&self) -> &Rotation {
        &self.rotation
    }
}
