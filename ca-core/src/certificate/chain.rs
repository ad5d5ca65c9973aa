//! A leaf with the intermediates that lead to a root.

use std::sync::Arc;
use std::time::Duration;

use pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage};

use super::{Certificate, CertificateError};
use crate::crypto::RING;
use crate::trust::TrustBundle;

/// A certificate and its intermediates, in the order in which TLS sends them; no root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateChain {
    leaf: Certificate,
    /// Shared: all that one CA issues has the same ones.
    intermediates: Arc<[Certificate]>,
}

impl CertificateChain {
    /// `intermediates` in order: each signed by the next.
    pub fn new(leaf: Certificate, intermediates: impl Into<Arc<[Certificate]>>) -> Self {
        Self {
            leaf,
            intermediates: intermediates.into(),
        }
    }

    /// Reads a PEM text: the leaf first.
    ///
    /// # Errors
    /// See [`Certificate::all_from_pem`].
    pub fn from_pem(text: &[u8]) -> Result<Self, CertificateError> {
        let mut all = Certificate::all_from_pem(text)?;
        let leaf = all.remove(0);
        Ok(Self::new(leaf, all))
    }

    /// The first certificate.
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// What stands between the leaf and a root.
    pub fn intermediates(&self) -> &[Certificate] {
        &self.intermediates
    }

    /// All of it, leaf first.
    pub fn iter(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.leaf).chain(self.intermediates.iter())
    }

    /// One PEM block for each certificate, leaf first.
    pub fn to_pem(&self) -> String {
        self.iter().map(Certificate::to_pem).collect()
    }

    /// Checks that the leaf leads to one of `roots` at `now` and serves both ends of a TLS connection. Path building is
    /// that of webpki: signatures, dates, CA rights, path lengths, key usages; and the root's own dates.
    ///
    /// # Errors
    /// [`ChainError`] tells which certificate and why.
    pub fn verify(&self, roots: &TrustBundle, now: OffsetDateTime) -> Result<(), ChainError> {
        let both = [KeyUsage::server_auth(), KeyUsage::client_auth()];
        self.verify_for(&both, roots, now)
    }

    /// As [`verify`](Self::verify), for a certificate that only the server's end of a connection shows.
    ///
    /// # Errors
    /// [`ChainError`] tells which certificate and why.
    pub fn verify_server(
        &self,
        roots: &TrustBundle,
        now: OffsetDateTime,
    ) -> Result<(), ChainError> {
        self.verify_for(&[KeyUsage::server_auth()], roots, now)
    }

    fn verify_for(
        &self,
        usages: &[KeyUsage],
        roots: &TrustBundle,
        now: OffsetDateTime,
    ) -> Result<(), ChainError> {
        let refused = |cause: webpki::Error| ChainError::Path(cause.to_string());
        let leaf = CertificateDer::from(self.leaf.der());
        let leaf = EndEntityCert::try_from(&leaf).map_err(refused)?;
        // webpki does not look at key usage: whoever may not sign certificates is kept from it.
        let intermediates: Vec<_> = self
            .intermediates
            .iter()
            .filter(|c| c.is_ca())
            .map(|c| CertificateDer::from(c.der()))
            .collect();
        let roots: Vec<_> = roots
            .certificates()
            .iter()
            .filter(|r| r.is_valid_at(now))
            .collect();
        if roots.is_empty() {
            return Err(ChainError::RootsExpired);
        }
        let roots: Vec<_> = roots
            .iter()
            .map(|c| CertificateDer::from(c.der()))
            .collect();
        let anchors: Vec<_> = roots
            .iter()
            .map(webpki::anchor_from_trusted_cert)
            .collect::<Result<_, _>>()
            .map_err(refused)?;
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        for usage in usages {
            leaf.verify_for_usage(
                RING.verifiers,
                &anchors,
                &intermediates,
                now,
                *usage,
                None,
                None,
            )
            .map_err(refused)?;
        }
        Ok(())
    }
}

/// Why a chain does not lead to a trusted root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No path that holds.
    #[error("certificate chain does not verify: {0}")]
    Path(String),
    /// There are roots, but none is valid now.
    #[error("no root is valid at this time")]
    RootsExpired,
}
