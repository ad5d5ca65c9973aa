//! Is what came back what was asked for?

use ca_core::{
    Certificate, CertificateChain, ChainError, IssuedChain, PublicKey, SignError, SpiffeId,
    SubjectName, TrustBundle,
};
use time::{Duration, OffsetDateTime};

use crate::screen::ScreenedRequest;

impl ScreenedRequest {
    /// How much later than asked a certificate may end: the clock of the signer may differ from ours, and
    /// some round up.
    pub const LATER_THAN_ASKED: Duration = Duration::minutes(5);

    /// Checks the certificate that a signer made of this request, as of `now`.
    ///
    /// It must have the key of the CSR, the granted name and no other, no rights of a CA, a life that has
    /// begun and ends no later than was asked for (sooner is fine: some signers have limits of their own),
    /// and lead to one of `roots`. The other certificates may come in any order and hold roots and copies:
    /// the answer has them in order, each once and without roots.
    ///
    /// # Errors
    /// [`ReturnedError`] names the first difference.
    pub fn accept(
        &self,
        chain: &CertificateChain,
        roots: &TrustBundle,
        now: OffsetDateTime,
    ) -> Result<IssuedChain, ReturnedError> {
        let leaf = chain.leaf();
        check_key(leaf, self.csr().public_key())?;
        let name_alone = [SubjectName::Spiffe(self.name().clone())];
        if leaf.names() != name_alone || leaf.other_names() > 0 {
            return Err(ReturnedError::OtherNames {
                found: leaf.names().to_vec(),
                others: leaf.other_names(),
                asked: self.name().clone(),
            });
        }
        if leaf.is_ca() {
            return Err(ReturnedError::IsCa);
        }
        check_dates(leaf, Some(self.request().lifetime()), now)?;
        lead_to_roots(chain, roots, now)
    }
}

/// Checks the certificate that a signer made of `key` for a server of our own, as of `now`.
///
/// It must have exactly `names`, in any order, no rights of a CA, a life that has begun and ends no later than `lifetime`
/// from now, and lead to one of `roots` as the certificate of a server.
///
/// # Errors
/// [`ReturnedError`] names the first difference.
pub fn accept_server(
    key: &PublicKey,
    names: &[SubjectName],
    lifetime: std::time::Duration,
    chain: &CertificateChain,
    roots: &TrustBundle,
    now: OffsetDateTime,
) -> Result<IssuedChain, ReturnedError> {
    let leaf = chain.leaf();
    check_key(leaf, key)?;
    let (mut found, mut asked) = (leaf.names().to_vec(), names.to_vec());
    found.sort();
    asked.sort();
    if found != asked || leaf.other_names() > 0 {
        return Err(ReturnedError::NotOurNames {
            found: leaf.names().to_vec(),
            others: leaf.other_names(),
        });
    }
    if leaf.is_ca() {
        return Err(ReturnedError::IsCa);
    }
    check_dates(leaf, Some(lifetime), now)?;
    let chain = in_order(chain)?;
    chain.verify_server(roots, now)?;
    Ok(IssuedChain::new(chain, roots.clone()))
}

/// Checks the certificate that a signer made of `key` as a CA below its own, as of `now`.
///
/// It must be of that key and of a CA whose life has begun, and that ends no later than `lifetime` from now, where that
/// was said; and it must lead to one of `roots`. **What it may sign is still to be tried**, as
/// [`ca_core::KeyCertBundle::new`] does: a constraint of a CA above may forbid all that would be asked of it.
///
/// # Errors
/// [`ReturnedError`] names the first difference.
pub fn accept_authority(
    key: &PublicKey,
    lifetime: Option<std::time::Duration>,
    chain: &CertificateChain,
    roots: &TrustBundle,
    now: OffsetDateTime,
) -> Result<IssuedChain, ReturnedError> {
    let certificate = chain.leaf();
    check_key(certificate, key)?;
    if !certificate.is_ca() {
        return Err(ReturnedError::NotCa);
    }
    // A path is judged by what stands at its end, which here is not at its end.
    if certificate.is_self_issued() {
        return Err(ReturnedError::SelfIssued);
    }
    check_dates(certificate, lifetime, now)?;
    let chain = in_order(chain)?;
    Ok(IssuedChain::new(chain, roots.clone()))
}

/// Checks a certificate of `key` that is wanted for what comes with it: it must lead to one of `roots`.
#[cfg(feature = "istio")]
pub(crate) fn accept_any_name(
    key: &PublicKey,
    chain: &CertificateChain,
    roots: &TrustBundle,
    now: OffsetDateTime,
) -> Result<IssuedChain, ReturnedError> {
    check_key(chain.leaf(), key)?;
    if chain.leaf().is_ca() {
        return Err(ReturnedError::IsCa);
    }
    lead_to_roots(chain, roots, now)
}

fn check_key(certificate: &Certificate, key: &PublicKey) -> Result<(), ReturnedError> {
    if certificate.public_key() == key {
        Ok(())
    } else {
        Err(ReturnedError::OtherKey)
    }
}

fn check_dates(
    certificate: &Certificate,
    lifetime: Option<std::time::Duration>,
    now: OffsetDateTime,
) -> Result<(), ReturnedError> {
    if !certificate.is_valid_at(now) {
        return Err(ReturnedError::NotValidNow {
            from: certificate.not_before(),
            until: certificate.not_after(),
        });
    }
    // A lifetime beyond the calendar is kept by every certificate.
    let latest = lifetime.and_then(|lifetime| {
        let asked = Duration::try_from(lifetime).unwrap_or(Duration::MAX);
        let longest = asked.checked_add(ScreenedRequest::LATER_THAN_ASKED)?;
        now.checked_add(longest)
    });
    match latest {
        Some(latest) if certificate.not_after() > latest => Err(ReturnedError::TooLong {
            until: certificate.not_after(),
            latest,
        }),
        _ => Ok(()),
    }
}

fn lead_to_roots(
    chain: &CertificateChain,
    roots: &TrustBundle,
    now: OffsetDateTime,
) -> Result<IssuedChain, ReturnedError> {
    let chain = in_order(chain)?;
    chain.verify(roots, now)?;
    Ok(IssuedChain::new(chain, roots.clone()))
}

/// Why a certificate from a signer is not released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReturnedError {
    /// For somebody else's key.
    #[error("the certificate is for another key than the one in the CSR")]
    OtherKey,
    /// For other names, or for more.
    #[error("the certificate names {found:?} and {others} others where {asked} was asked for")]
    OtherNames {
        /// Its names of the kinds we know.
        found: Vec<SubjectName>,
        /// How many more it has.
        others: usize,
        /// What was asked for.
        asked: SpiffeId,
    },
    /// For other names than those of our server, or for more or fewer.
    #[error(
        "the certificate names {found:?} and {others} others, which are not those of this server"
    )]
    NotOurNames {
        /// Its names of the kinds we know.
        found: Vec<SubjectName>,
        /// How many more it has.
        others: usize,
    },
    /// Its holder could sign certificates.
    #[error("the certificate is one of a CA")]
    IsCa,
    /// Its holder could sign nothing.
    #[error(
        "the certificate is not one of a CA: the signer has answered with an ordinary one, as those do that do not know \
         the wish or do not grant it"
    )]
    NotCa,
    /// A CA under the name of the CA above it.
    #[error("the certificate of the CA has the name of its own issuer, or is self-signed")]
    SelfIssued,
    /// Expired, or not begun.
    #[error("the certificate is valid from {from} to {until}, which is not now")]
    NotValidNow {
        /// Its start.
        from: OffsetDateTime,
        /// Its end.
        until: OffsetDateTime,
    },
    /// It would outlive what was decided for it.
    #[error("the certificate is valid until {until}, which is later than {latest}")]
    TooLong {
        /// Its end.
        until: OffsetDateTime,
        /// The latest end that would do.
        latest: OffsetDateTime,
    },
    /// A certificate with no place in the chain, or two for one place.
    #[error("certificate {serial} does not belong to one chain with the others")]
    Stranger {
        /// Its serial number.
        serial: String,
    },
    /// It does not lead to a root.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl From<ReturnedError> for SignError {
    fn from(error: ReturnedError) -> Self {
        Self::BadAnswer(error.to_string())
    }
}

/// The chain from the leaf upwards by the names of the issuers, without copies and self-issued roots.
///
/// Peers that verify build a path from any order, but those that pass a chain on, ztunnel and Envoy among
/// them, send it as they got it. Whether the signatures hold is for the verification that follows.
fn in_order(chain: &CertificateChain) -> Result<CertificateChain, ReturnedError> {
    let mut waiting: Vec<&Certificate> = Vec::new();
    for certificate in chain.intermediates() {
        let copy = certificate == chain.leaf() || waiting.contains(&certificate);
        if !copy && !certificate.is_self_issued() {
            waiting.push(certificate);
        }
    }
    let mut ordered: Vec<Certificate> = Vec::new();
    let mut last = chain.leaf();
    while let Some(at) = waiting
        .iter()
        .position(|candidate| candidate.subject_der() == last.issuer_der())
    {
        last = waiting.remove(at);
        ordered.push(last.clone());
    }
    match waiting.first() {
        Some(stranger) => Err(ReturnedError::Stranger {
            serial: stranger.serial(),
        }),
        None => Ok(CertificateChain::new(chain.leaf().clone(), ordered)),
    }
}

#[cfg(test)]
mod tests;
