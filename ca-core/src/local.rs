//! Signing with a bundle of our own.

use std::time::Duration;

use time::OffsetDateTime;

use crate::authority::{BoxFuture, CertificateAuthority, IssuedChain, SignError, SigningRequest};
use crate::bundle::{BundleStore, KeyCertBundle};
use crate::certificate::CaRights;
use crate::csr::{Csr, create_csr_pem};
use crate::identity::{SubjectName, TrustDomain};
use crate::key::{KeyKind, PrivateKey};
use crate::public_key::PublicKeyKind;
use crate::template::{CaContents, Subject, Validity, random_serial};

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

    /// Makes a key and certifies it: for listeners of our own. The kind of the key follows the CA's: P-384 for a P-384 CA,
    /// else P-256, also where the CA has RSA, since peers that can check an RSA signature can check an ECDSA one.
    ///
    /// # Errors
    /// As [`LocalAuthority::issue`]; also when no key can be made.
    pub fn issue_with_new_key(
        &self,
        names: Vec<SubjectName>,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<(PrivateKey, IssuedChain), SignError> {
        let kind = match self.bundles.current().key().public_key().kind() {
            PublicKeyKind::EcdsaP384 => KeyKind::EcdsaP384,
            _ => KeyKind::EcdsaP256,
        };
        let key = PrivateKey::generate(kind)?;
        let refused = |cause: &dyn std::error::Error| SignError::Refused(cause.to_string());
        let csr = create_csr_pem(&key, &names).map_err(|e| refused(&e))?;
        let csr = Csr::from_pem(csr.as_bytes()).map_err(|e| refused(&e))?;
        let issued = self.issue(&SigningRequest::new(csr, names, lifetime), now)?;
        Ok((key, issued))
    }

    /// Certifies another CA below this one. **Whoever gets such a certificate can name anybody in the mesh**, within
    /// the constraints that are given.
    ///
    /// # Errors
    /// When this CA may have no CA below it or not such a long path, its bundle is expired or not yet valid, or the key
    /// fails.
    pub fn issue_ca(
        &self,
        request: &CaRequest,
        now: OffsetDateTime,
    ) -> Result<IssuedChain, SignError> {
        let bundle = self.bundles.current();
        let path_length = request.path_length_below(&bundle)?;
        let validity = validity(&bundle, request.lifetime, now)?;
        let serial = random_serial().ok_or(SignError::Randomness)?;
        let contents = CaContents {
            organization: &request.organization,
            common_name: Some(&request.common_name),
            path_length,
            permitted: request.permitted.as_ref(),
        };
        let public_key = request.csr.public_key();
        let certificate =
            bundle
                .template()
                .sign_ca(bundle.key(), public_key, &contents, validity, &serial)?;
        Ok(IssuedChain::new(
            bundle.chain_for(certificate),
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

/// What the certificate of another CA is to say.
#[derive(Clone, Debug)]
pub struct CaRequest {
    csr: Csr,
    organization: String,
    common_name: String,
    lifetime: Duration,
    path_length: Option<u8>,
    permitted: Option<TrustDomain>,
}

impl CaRequest {
    /// The key of `csr` becomes a CA. The names are those of the new CA, and must differ from those of every CA above it.
    pub fn new(
        csr: Csr,
        organization: impl Into<String>,
        common_name: impl Into<String>,
        lifetime: Duration,
    ) -> Self {
        let (organization, common_name) = (organization.into(), common_name.into());
        Self {
            csr,
            organization,
            common_name,
            lifetime,
            path_length: None,
            permitted: None,
        }
    }

    /// At most this many CAs may follow below it: 0 for one that certifies workloads alone.
    #[must_use]
    pub fn with_path_length(mut self, path_length: u8) -> Self {
        self.path_length = Some(path_length);
        self
    }

    /// URI names below it must lie in this trust domain. OpenSSL, BoringSSL (Envoy) and Go enforce it; **rustls cannot, and
    /// refuses every certificate below such a CA** (ztunnel among others, and [`crate::CertificateChain::verify`]).
    #[must_use]
    pub fn permitting_only(mut self, trust_domain: TrustDomain) -> Self {
        self.permitted = Some(trust_domain);
        self
    }

    /// The path length to write: never more than the CAs above allow.
    fn path_length_below(&self, bundle: &KeyCertBundle) -> Result<Option<u8>, SignError> {
        // Each certificate in the chain counts the CAs below it, of which there are already `depth`.
        let room = bundle.chain().iter().enumerate().filter_map(|(depth, ca)| {
            let CaRights::Ca { path_length } = ca.rights() else {
                return Some(-1);
            };
            path_length.map(|n| i64::from(n) - i64::try_from(depth).unwrap_or(i64::MAX) - 1)
        });
        match room.min() {
            Some(room) if room < 0 => Err(SignError::Refused(
                "this CA may have no CA below it (path length)".into(),
            )),
            Some(room) if i64::from(self.path_length.unwrap_or(0)) > room => {
                Err(SignError::Refused(format!(
                    "path length {:?} where {room} is left",
                    self.path_length
                )))
            }
            // A limit above is a limit below, also where none was asked for.
            Some(room) => Ok(self.path_length.or_else(|| u8::try_from(room).ok())),
            None => Ok(self.path_length),
        }
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
mod against_istio;
#[cfg(test)]
mod tests;
