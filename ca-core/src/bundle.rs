//! Key, certificate, chain and roots of a CA as one verified value, and the cell that holds the current one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use event_listener::Event;
use time::OffsetDateTime;

use crate::certificate::{CaRights, Certificate, CertificateChain, ChainError};
use crate::key::{KeyError, SigningKey};
use crate::revocation::RevocationLists;
use crate::template::{self, IssuerTemplate, Subject, Validity};
use crate::trust::{TrustBroken, TrustBundle};

mod pem;

pub use pem::{BundlePem, BundlePemError, CaLayout, IncompleteCa, Part};

/// All that is needed to sign, known to fit together. It is never changed, only replaced.
#[derive(Clone, Debug)]
pub struct KeyCertBundle {
    key: Arc<dyn SigningKey>,
    chain: CertificateChain,
    roots: TrustBundle,
    revocation: Option<RevocationLists>,
    template: IssuerTemplate,
    /// The intermediates that go out with each leaf: the signing certificate too, unless it is a root.
    issued_intermediates: Arc<[Certificate]>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl KeyCertBundle {
    /// `chain` starts with the signing certificate; what follows leads to one of `roots`. For a self-signed CA the
    /// chain is its root alone.
    ///
    /// What is checked is what clients will do: a certificate for nobody is signed with the key, and must lead to a
    /// root at `now`.
    ///
    /// # Errors
    /// When the signing certificate is not a CA, the key is not its key, or the path does not hold at `now`.
    pub fn new(
        key: Arc<dyn SigningKey>,
        chain: CertificateChain,
        roots: TrustBundle,
        now: OffsetDateTime,
    ) -> Result<Self, BundleError> {
        let signing = chain.leaf();
        for certificate in chain.iter() {
            match certificate.rights() {
                CaRights::Ca { .. } => {}
                CaRights::None => {
                    return Err(BundleError::NotCa {
                        serial: certificate.serial(),
                    });
                }
                CaRights::KeyUsageForbids => {
                    return Err(BundleError::KeyUsage {
                        serial: certificate.serial(),
                    });
                }
            }
        }
        if signing.public_key() != key.public_key() {
            return Err(BundleError::KeyMismatch);
        }
        // Roots are the receiver's to have: one in the chain would only be sent for nothing.
        let issued_intermediates: Arc<[Certificate]> = chain
            .iter()
            .filter(|c| !roots.contains(c))
            .cloned()
            .collect();
        let bundle = Self {
            template: IssuerTemplate::of(signing),
            not_before: chain
                .iter()
                .map(Certificate::not_before)
                .max()
                .unwrap_or(now),
            not_after: chain
                .iter()
                .map(Certificate::not_after)
                .fold(roots.not_after(), Ord::min),
            issued_intermediates,
            key,
            chain,
            roots,
            revocation: None,
        };
        bundle.issue_probe(now)?.verify(&bundle.roots, now)?;
        // A root with the same name and key vouches for what is signed, also when our own certificate is over.
        if now < bundle.not_before || now >= bundle.not_after {
            return Err(BundleError::OutOfTime {
                from: bundle.not_before,
                to: bundle.not_after,
            });
        }
        Ok(bundle)
    }

    /// The key that signs.
    pub fn key(&self) -> &dyn SigningKey {
        &*self.key
    }

    /// The certificate of the key.
    pub fn signing_certificate(&self) -> &Certificate {
        self.chain.leaf()
    }

    /// The signing certificate and what leads from it to a root.
    pub fn chain(&self) -> &CertificateChain {
        &self.chain
    }

    /// The roots to trust.
    pub fn roots(&self) -> &TrustBundle {
        &self.roots
    }

    /// The same bundle with these revocation lists, or with none.
    #[must_use]
    pub fn with_revocation_lists(self, revocation: Option<RevocationLists>) -> Self {
        Self { revocation, ..self }
    }

    /// The revocation lists to hand out with the roots.
    pub fn revocation_lists(&self) -> Option<&RevocationLists> {
        self.revocation.as_ref()
    }

    /// The earliest end of any certificate on the path: nothing issued lives longer.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The latest start of any certificate on the path.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    pub(crate) fn template(&self) -> &IssuerTemplate {
        &self.template
    }

    /// A leaf of this issuer with the intermediates it needs.
    pub(crate) fn chain_for(&self, leaf: Certificate) -> CertificateChain {
        CertificateChain::new(leaf, Arc::clone(&self.issued_intermediates))
    }

    fn issue_probe(&self, now: OffsetDateTime) -> Result<CertificateChain, BundleError> {
        // Certified to nobody, with the CA's own key, and thrown away.
        let subject = Subject {
            public_key: self.key.public_key(),
            common_name: None,
            names: &[],
        };
        let validity = Validity {
            not_before: now,
            not_after: now,
        };
        let leaf =
            self.template
                .sign_leaf(self.key(), &subject, validity, &template::PROBE_SERIAL)?;
        Ok(self.chain_for(leaf))
    }
}

/// Why parts are not a CA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A certificate that may not sign others.
    #[error("certificate {serial} is not authorized to sign other certificates")]
    NotCa {
        /// Its serial number.
        serial: String,
    },
    /// A CA certificate whose key usage leaves out keyCertSign.
    #[error("the key usage of certificate {serial} does not include certificate signing")]
    KeyUsage {
        /// Its serial number.
        serial: String,
    },
    /// The path holds, but its certificates are not all valid now: nothing could be signed.
    #[error(
        "the signing certificate and those above it are valid together from {from} to {to} only"
    )]
    OutOfTime {
        /// The latest start.
        from: OffsetDateTime,
        /// The earliest end.
        to: OffsetDateTime,
    },
    /// The private key belongs to another certificate.
    #[error("the private key does not match the signing certificate")]
    KeyMismatch,
    /// The key does not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What it signs would not be trusted.
    #[error("{0}")]
    Chain(#[from] ChainError),
}

/// The cell that holds the current bundle. Readers never wait; cheap to clone, all clones are one cell.
#[derive(Clone, Debug)]
pub struct BundleStore(Arc<Cell>);

#[derive(Debug)]
struct Cell {
    current: ArcSwap<KeyCertBundle>,
    /// Counts replacements; written after the bundle, so whoever sees a number finds that bundle or a later one.
    generation: AtomicU64,
    replaced: Event,
}

impl BundleStore {
    /// Starts with `bundle`, generation 1.
    pub fn new(bundle: KeyCertBundle) -> Self {
        Self(Arc::new(Cell {
            current: ArcSwap::from_pointee(bundle),
            generation: AtomicU64::new(1),
            replaced: Event::new(),
        }))
    }

    /// The bundle to use. **Take it once for each request**, so that leaf, chain and roots belong together.
    pub fn current(&self) -> Arc<KeyCertBundle> {
        self.0.current.load_full()
    }

    /// How many bundles there have been.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Makes `bundle` the current one, provided that no workload loses its trust by it: the new roots still contain the
    /// old ones, or are some of them. Whoever got a certificate a moment ago can then still talk to everybody.
    ///
    /// # Errors
    /// When the roots are others; the current bundle stays.
    pub fn succeed(&self, bundle: KeyCertBundle) -> Result<(), TrustBroken> {
        self.current().roots().check_successor(bundle.roots())?;
        self.replace(bundle);
        Ok(())
    }

    /// Makes `bundle` the current one and wakes all subscribers.
    pub fn replace(&self, bundle: KeyCertBundle) {
        self.0.current.store(Arc::new(bundle));
        self.0.generation.fetch_add(1, Ordering::Release);
        self.0.replaced.notify(usize::MAX);
    }

    /// Follows replacements from here on.
    pub fn subscribe(&self) -> Subscription {
        Subscription {
            seen: self.generation(),
            store: self.clone(),
        }
    }
}

/// A reader that wants to know of each new bundle. Works with any async runtime.
#[derive(Debug)]
pub struct Subscription {
    store: BundleStore,
    seen: u64,
}

impl Subscription {
    /// Waits for a bundle newer than the last one this subscription has returned; intermediate ones are skipped.
    pub async fn changed(&mut self) -> Arc<KeyCertBundle> {
        loop {
            // Registered before the look: a replacement between the two is not missed.
            let replaced = self.store.0.replaced.listen();
            let generation = self.store.generation();
            if generation != self.seen {
                self.seen = generation;
                return self.store.current();
            }
            replaced.await;
        }
    }
}

#[cfg(test)]
mod tests;
