//! Certificate revocation lists: read, checked against their issuers, carried.

use std::fmt;
use std::sync::Arc;

use time::OffsetDateTime;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::certificate::{Certificate, is_whole, read_signed};
use crate::crypto::Backend;

/// The revocation lists that go with a CA's chain: at least one, in the order given. Cheap to clone.
///
/// They are carried to those who check certificates; this crate issues certificates too short-lived to be revoked.
#[derive(Clone)]
pub struct RevocationLists(Arc<Inner>);

struct Inner {
    lists: Vec<RevocationList>,
    pem: Box<str>,
}

/// One list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    der: Vec<u8>,
    issuer: Vec<u8>,
    next_update: Option<OffsetDateTime>,
    revoked: usize,
}

impl RevocationLists {
    /// Reads all lists of a PEM text.
    ///
    /// # Errors
    /// When there is none, a block is of another kind, or one does not read.
    pub fn from_pem(text: &[u8]) -> Result<Self, RevocationError> {
        let blocks = pem::parse_many(text).map_err(|e| RevocationError::Pem(e.to_string()))?;
        if blocks.is_empty() {
            return Err(RevocationError::Pem("no PEM block in it".into()));
        }
        let read = |block: pem::Pem| match block.tag() {
            LABEL => RevocationList::from_der(block.into_contents()),
            label => Err(RevocationError::Pem(format!(
                "PEM block {label:?} where a revocation list is expected"
            ))),
        };
        let lists: Vec<_> = blocks.into_iter().map(read).collect::<Result<_, _>>()?;
        let pem: String = lists
            .iter()
            .map(|list| crate::certificate::encode_pem(LABEL, &list.der))
            .collect();
        Ok(Self(Arc::new(Inner {
            lists,
            pem: pem.into(),
        })))
    }

    /// The lists, in order.
    pub fn lists(&self) -> &[RevocationList] {
        &self.0.lists
    }

    /// One PEM block for each list.
    pub fn to_pem(&self) -> &str {
        &self.0.pem
    }

    /// Checks that each of `issuers` has signed one of the lists: Envoy, once it has any list, refuses chains that have
    /// an issuer without one.
    ///
    /// # Errors
    /// Names the issuers that are left out, by the serial number of their certificate.
    pub fn cover<'a>(
        &self,
        issuers: impl IntoIterator<Item = &'a Certificate>,
        backend: &Backend,
    ) -> Result<(), RevocationError> {
        let missing: Vec<_> = issuers
            .into_iter()
            .filter(|issuer| {
                !self
                    .0
                    .lists
                    .iter()
                    .any(|list| list.is_signed_by(issuer, backend))
            })
            .map(Certificate::serial)
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(RevocationError::NotCovered { missing })
        }
    }
}

impl RevocationList {
    fn from_der(der: Vec<u8>) -> Result<Self, RevocationError> {
        let malformed = |cause: &dyn fmt::Display| RevocationError::Malformed(cause.to_string());
        let (rest, list) = CertificateRevocationList::from_der(&der).map_err(|e| malformed(&e))?;
        if !rest.is_empty() {
            return Err(malformed(&"bytes follow it"));
        }
        if !is_whole(list.issuer().as_raw()) {
            return Err(malformed(&"the issuer's name does not read"));
        }
        let next_update = list
            .next_update()
            .map(|time| OffsetDateTime::from_unix_timestamp(time.timestamp()))
            .transpose()
            .map_err(|e| malformed(&e))?;
        let (issuer, revoked) = (
            list.issuer().as_raw().to_vec(),
            list.iter_revoked_certificates().count(),
        );
        Ok(Self {
            issuer,
            next_update,
            revoked,
            der,
        })
    }

    /// Whether the key of `issuer` has signed it, the names fit, and `issuer` may sign lists.
    pub fn is_signed_by(&self, issuer: &Certificate, backend: &Backend) -> bool {
        self.issuer == issuer.subject_der()
            && issuer.may_sign_revocation_lists()
            && read_signed(&self.der).is_ok_and(|signed| {
                issuer
                    .public_key()
                    .verify(backend, signed.algorithm, signed.message, signed.signature)
                    .is_ok()
            })
    }

    /// When its successor is due, if it says so.
    pub fn next_update(&self) -> Option<OffsetDateTime> {
        self.next_update
    }

    /// How many certificates it revokes.
    pub fn revoked(&self) -> usize {
        self.revoked
    }
}

impl PartialEq for RevocationLists {
    fn eq(&self, other: &Self) -> bool {
        self.0.lists == other.0.lists
    }
}

impl Eq for RevocationLists {}

impl fmt::Debug for RevocationLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevocationLists({})", self.0.lists.len())
    }
}

/// Why revocation lists are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// Not a PEM text of revocation lists.
    #[error("not PEM: {0}")]
    Pem(String),
    /// Not the DER of a revocation list.
    #[error("not a revocation list: {0}")]
    Malformed(String),
    /// An issuer of the chain has no list.
    #[error("missing CRL signed by certificates: {missing:?}")]
    NotCovered {
        /// Their serial numbers.
        missing: Vec<String>,
    },
}

const LABEL: &str = "X509 CRL";

#[cfg(test)]
mod tests {
    use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
    use time::Duration;

    use super::*;
    use crate::crypto::RING;
    use crate::testing::{TestCa, now};

    /// A list by rcgen, an implementation that is not ours.
    fn list_of(ca: &TestCa) -> String {
        let key = rcgen::KeyPair::from_pem(&ca.key().to_pkcs8_pem()).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(ca.roots().to_pem(), key).unwrap();
        let params = CertificateRevocationListParams {
            this_update: now(),
            next_update: now() + Duration::days(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(7),
                revocation_time: now(),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&issuer).unwrap().pem().unwrap()
    }

    #[test]
    fn lists_are_read_in_order_and_matched_with_their_issuers() {
        let (a, b) = (TestCa::new("a"), TestCa::new("b"));
        let lists = RevocationLists::from_pem((list_of(&a) + &list_of(&b)).as_bytes()).unwrap();
        assert_eq!(lists.lists().len(), 2);
        assert_eq!(lists.lists()[0].revoked(), 1);
        let due = lists.lists()[0].next_update().unwrap() - now();
        assert!(due <= Duration::days(1) && due > Duration::hours(23));
        assert!(lists.lists()[0].is_signed_by(&a.roots().certificates()[0], &RING));
        assert!(!lists.lists()[0].is_signed_by(&b.roots().certificates()[0], &RING));
        assert_eq!(
            RevocationLists::from_pem(lists.to_pem().as_bytes()).unwrap(),
            lists
        );
    }

    #[test]
    fn an_issuer_without_a_list_is_named() {
        let (a, b) = (TestCa::new("a"), TestCa::new("b"));
        let lists = RevocationLists::from_pem(list_of(&a).as_bytes()).unwrap();
        let (root_a, root_b) = (
            a.roots().certificates()[0].clone(),
            b.roots().certificates()[0].clone(),
        );
        lists.cover([&root_a], &RING).unwrap();
        let error = lists.cover([&root_a, &root_b], &RING).unwrap_err();
        assert_eq!(
            error,
            RevocationError::NotCovered {
                missing: vec![root_b.serial()]
            }
        );
        // Another key under the same name has signed nothing.
        let namesake = TestCa::new("a").roots().certificates()[0].clone();
        assert!(lists.cover([&namesake], &RING).is_err());
    }

    #[test]
    fn what_is_not_a_list_is_refused() {
        let ca = TestCa::new("a");
        assert!(matches!(
            RevocationLists::from_pem(b""),
            Err(RevocationError::Pem(_))
        ));
        assert!(matches!(
            RevocationLists::from_pem(ca.roots().to_pem().as_bytes()),
            Err(RevocationError::Pem(_))
        ));
        let der = pem::parse(list_of(&ca)).unwrap().into_contents();
        for end in 0..der.len() {
            assert!(
                RevocationList::from_der(der[..end].to_vec()).is_err(),
                "{end} bytes were enough"
            );
        }
        assert!(RevocationList::from_der([der, vec![0]].concat()).is_err());
    }
}
