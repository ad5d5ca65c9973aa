//! What it means to be a certificate authority: one method.

mod elements;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use time::OffsetDateTime;

use crate::certificate::CertificateChain;
use crate::csr::Csr;
use crate::identity::SubjectName;
use crate::key::KeyError;
use crate::trust::TrustBundle;

pub use elements::ElementsError;

/// A boxed future, for traits that are chosen at start-up.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Somebody who turns a decided request into a certificate: with a key of its own, or by asking somebody else.
pub trait CertificateAuthority: Send + Sync + std::fmt::Debug {
    /// Signs at the time `now`. Dropping the future gives up waiting.
    fn sign(
        &self,
        request: SigningRequest,
        now: OffsetDateTime,
    ) -> BoxFuture<'_, Result<IssuedChain, SignError>>;
}

/// What to sign. **The names must come from a decision about the caller**, never from the request it sent.
#[derive(Clone, Debug)]
pub struct SigningRequest {
    csr: Csr,
    names: Vec<SubjectName>,
    lifetime: Duration,
    signer: Option<String>,
}

impl SigningRequest {
    /// The key of `csr` is to be certified for `names`, from now for `lifetime`.
    pub fn new(csr: Csr, names: Vec<SubjectName>, lifetime: Duration) -> Self {
        Self {
            csr,
            names,
            lifetime,
            signer: None,
        }
    }

    /// Names the signer to ask, where there are several (`CertSigner` on Istio's wire).
    #[must_use]
    pub fn with_signer(mut self, signer: Option<String>) -> Self {
        self.signer = signer;
        self
    }

    /// The request as the caller sent it.
    pub fn csr(&self) -> &Csr {
        &self.csr
    }

    /// The names to certify, in order.
    pub fn names(&self) -> &[SubjectName] {
        &self.names
    }

    /// From now until the end of the certificate.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The signer to ask, if the caller named one.
    pub fn signer(&self) -> Option<&str> {
        self.signer.as_deref()
    }
}

/// A complete answer: leaf, intermediates and roots of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedChain {
    chain: CertificateChain,
    roots: TrustBundle,
}

impl IssuedChain {
    /// Joins what belongs together.
    pub fn new(chain: CertificateChain, roots: TrustBundle) -> Self {
        Self { chain, roots }
    }

    /// Leaf and intermediates.
    pub fn chain(&self) -> &CertificateChain {
        &self.chain
    }

    /// The roots to trust from now on.
    pub fn roots(&self) -> &TrustBundle {
        &self.roots
    }
}

/// Why nothing was signed, by what can be done about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// There is no bundle to sign with yet. Try again later.
    #[error("Istio CA is not ready")]
    NotReady,
    /// The request itself cannot be granted: the caller must change it.
    #[error("{0}")]
    Refused(String),
    /// The signing certificate, or one above it, has expired: an operator must act.
    #[error("signing certificate has expired at {at}")]
    Expired {
        /// When.
        at: OffsetDateTime,
    },
    /// The signing certificate, or one above it, is not valid yet: a clock is wrong.
    #[error("signing certificate is not valid before {from}")]
    NotYetValid {
        /// From when.
        from: OffsetDateTime,
    },
    /// The key or its device fails.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The system has no randomness.
    #[error("no randomness for a serial number")]
    Randomness,
    /// Somebody who was asked to sign did not answer, or not in time. Try again later.
    #[error("{0}")]
    Unavailable(String),
    /// Somebody who was asked to sign will not: an operator must act, here or there.
    #[error("{0}")]
    Declined(String),
    /// Somebody who was asked to sign sent what was not asked for.
    #[error("{0}")]
    BadAnswer(String),
}

impl SignError {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotReady | Self::Unavailable(_))
    }
}
