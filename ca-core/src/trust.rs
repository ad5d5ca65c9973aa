//! A set of roots that merges without duplicates.

use std::fmt;
use std::sync::{Arc, OnceLock};

use time::OffsetDateTime;

use crate::certificate::{Certificate, CertificateError};

/// The roots that a mesh trusts: at least one, each once, in the order given. Cheap to clone.
#[derive(Clone)]
pub struct TrustBundle(Arc<Inner>);

struct Inner {
    roots: Vec<Certificate>,
    /// Written at the first use, then sent with every reply.
    pem: OnceLock<Box<str>>,
}

impl TrustBundle {
    /// Later copies of a root are dropped.
    ///
    /// # Errors
    /// When there is no root, or one is not a CA certificate.
    pub fn new(roots: impl IntoIterator<Item = Certificate>) -> Result<Self, TrustError> {
        let mut unique: Vec<Certificate> = Vec::new();
        for root in roots {
            if !root.is_ca() {
                return Err(TrustError::NotCa {
                    serial: root.serial(),
                });
            }
            if !unique.contains(&root) {
                unique.push(root);
            }
        }
        if unique.is_empty() {
            return Err(TrustError::Empty);
        }
        Ok(Self(Arc::new(Inner {
            roots: unique,
            pem: OnceLock::new(),
        })))
    }

    /// Reads a PEM text.
    ///
    /// # Errors
    /// When it has no certificate, one does not read, or one is not a CA certificate.
    pub fn from_pem(text: &[u8]) -> Result<Self, TrustError> {
        Self::new(Certificate::all_from_pem(text)?)
    }

    /// The roots, in order.
    pub fn certificates(&self) -> &[Certificate] {
        &self.0.roots
    }

    /// These roots, then those of `other` that are new.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let mut roots = self.0.roots.clone();
        roots.extend(
            other
                .0
                .roots
                .iter()
                .filter(|root| !self.contains(root))
                .cloned(),
        );
        Self(Arc::new(Inner {
            roots,
            pem: OnceLock::new(),
        }))
    }

    /// Whether `certificate` is one of the roots.
    pub fn contains(&self, certificate: &Certificate) -> bool {
        self.0.roots.contains(certificate)
    }

    /// Whether every root of `other` is one of these.
    pub fn contains_all(&self, other: &Self) -> bool {
        other.0.roots.iter().all(|root| self.contains(root))
    }

    /// Whether `new` may take the place of these roots in one step, without cutting anybody off: it still contains all of
    /// them, or is some of them.
    ///
    /// # Errors
    /// When a root would go while another comes.
    pub fn check_successor(&self, new: &Self) -> Result<(), TrustBroken> {
        if new.contains_all(self) || self.contains_all(new) {
            Ok(())
        } else {
            Err(TrustBroken)
        }
    }

    /// When the last of the roots expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.0
            .roots
            .iter()
            .map(Certificate::not_after)
            .max()
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// One PEM block for each root, in order.
    pub fn to_pem(&self) -> &str {
        self.0.pem.get_or_init(|| {
            self.0
                .roots
                .iter()
                .map(Certificate::to_pem)
                .collect::<String>()
                .into()
        })
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.0.roots == other.0.roots
    }
}

impl Eq for TrustBundle {}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrustBundle").field(&self.0.roots).finish()
    }
}

/// Why certificates are not a set of roots.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Trusting nobody is a mistake, not a setting.
    #[error("no root certificate")]
    Empty,
    /// A certificate that may not sign others.
    #[error("certificate {serial} is not a CA certificate")]
    NotCa {
        /// Its serial number.
        serial: String,
    },
    /// One does not read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The roots were to be exchanged in one step, with which certificates in use would lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the new roots neither contain the old ones nor are some of them: trust both for a while, then drop the old"
)]
pub struct TrustBroken;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCa;

    #[test]
    fn merging_keeps_the_order_and_drops_copies() {
        let (a, b) = (TestCa::new("a").roots(), TestCa::new("b").roots());
        let both = a.merge(&b).merge(&a);
        assert_eq!(both.certificates().len(), 2);
        assert_eq!(both.certificates()[0], a.certificates()[0]);
        assert!(both.contains(&b.certificates()[0]));
        assert_eq!(
            TrustBundle::from_pem(both.to_pem().as_bytes()).unwrap(),
            both
        );
    }

    #[test]
    fn nothing_and_leaves_are_not_roots() {
        assert_eq!(TrustBundle::new([]).unwrap_err(), TrustError::Empty);
        let leaf = TestCa::new("a").workload("ns", "sa").1;
        assert!(matches!(
            TrustBundle::new([leaf.leaf().clone()]),
            Err(TrustError::NotCa { .. })
        ));
        assert!(matches!(
            TrustBundle::from_pem(b"junk"),
            Err(TrustError::Certificate(_))
        ));
    }
}
