//! Signing with a bundle of our own.

use std::time::Duration;

use time::OffsetDateTime;

use crate::authority::{BoxFuture, CertificateAuthority, IssuedChain, SignError, SigningRequest};
use crate::bundle::{BundleStore, KeyCertBundle};
use crate::template::{Subject, Validity, random_serial};

/// A CA that holds its key (or the handle to it) in this process.
///
/// ```
/// use std::time::Duration;
/// use ca_core::{Csr, LocalAuthority, SigningRequest, SpiffeId};
/// # use ca_core::testing::{TestCa, now};
/// # let ca = TestCa::new("cluster.local");
/// # let (bundles, now) = (ca.bundles(), now());
/// # let csr_pem = ca_core::create_csr_pem(&ca_core::PrivateKey::generate(Default::default())?, &[])?;
///
/// let authority = LocalAuthority::new(bundles);
/// let csr = Csr::from_pem(csr_pem.as_bytes())?;
/// let name: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse()?;
/// let request = SigningRequest::new(csr, vec![name.into()], Duration::from_secs(3600));
/// let issued = authority.issue(&request, now)?;
/// issued.chain().verify(issued.roots(), now)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LocalAuthority {
    bundles: BundleStore,
}

impl LocalAuthority {
    /// Signs with whatever bundle is current in `bundles`.
    pub fn new(bundles: BundleStore) -> Self {
        Self { bundles }
    }

    /// The cell it signs from.
    pub fn bundles(&self) -> &BundleStore {
        &self.bundles
    }

    /// Signs on this thread: some 20 µs with a P-256 key, a millisecond with RSA-2048.
    ///
    /// The certificate starts a little before `now` and ends `lifetime` after it, or with the first certificate above
    /// it. Its names are those of the request. If the CSR asks for a common name, it gets the first of them, when that
    /// fits into 64 bytes (RFC 5280, upper bounds); the CSR's own wish for a value is ignored.
    ///
    /// # Errors
    /// When the request has no names, the bundle is expired or not yet valid, or the key fails.
    pub fn issue(
        &self,
        request: &SigningRequest,
        now: OffsetDateTime,
    ) -> Result<IssuedChain, SignError> {
        if request.names().is_empty() {
            return Err(SignError::Refused("no name to certify".into()));
        }
        let bundle = self.bundles.current();
        let common_name = request
            .csr()
            .wants_common_name()
            .then(|| request.names()[0].to_string());
        let subject = Subject {
            public_key: request.csr().public_key(),
            common_name: common_name
                .as_deref()
                .filter(|name| name.len() <= MAX_COMMON_NAME_BYTES),
            names: request.names(),
        };
        let validity = validity(&bundle, request.lifetime(), now)?;
        let serial = random_serial().ok_or(SignError::Randomness)?;
        let leaf = bundle
            .template()
            .sign_leaf(bundle.key(), &subject, validity, &serial)?;
        Ok(IssuedChain::new(
            bundle.chain_for(leaf),
            bundle.roots().clone(),
        ))
    }
}

impl CertificateAuthority for LocalAuthority {
    fn sign(
        &self,
        request: SigningRequest,
        now: OffsetDateTime,
    ) -> BoxFuture<'_, Result<IssuedChain, SignError>> {
        Box::pin(std::future::ready(self.issue(&request, now)))
    }
}

/// The dates of a leaf. Backdated for peers whose clock is behind, but never by more than a quarter of the lifetime:
/// ztunnel renews at half of the time between the dates, and would else ask for short certificates without pause.
fn validity(
    bundle: &KeyCertBundle,
    lifetime: Duration,
    now: OffsetDateTime,
) -> Result<Validity, SignError> {
    if now >= bundle.not_after() {
        return Err(SignError::Expired {
            at: bundle.not_after(),
        });
    }
    if now < bundle.not_before() {
        return Err(SignError::NotYetValid {
            from: bundle.not_before(),
        });
    }
    let too_long = || SignError::Refused("certificate lifetime beyond the calendar".into());
    let backdated =
        whole_seconds(now) - Duration::from_secs(MAX_BACKDATING.min(lifetime / 4).as_secs());
    let not_after = time::Duration::try_from(lifetime)
        .ok()
        .and_then(|l| now.checked_add(l))
        .ok_or_else(too_long)?;
    Ok(Validity {
        not_before: backdated.max(bundle.not_before()),
        not_after: whole_seconds(not_after.min(bundle.not_after())),
    })
}

pub(crate) fn whole_seconds(time: OffsetDateTime) -> OffsetDateTime {
    time - time::Duration::nanoseconds(i64::from(time.nanosecond()))
}

/// Istio's allowance for clock skew.
pub(crate) const MAX_BACKDATING: Duration = Duration::from_secs(120);
const MAX_COMMON_NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests;
