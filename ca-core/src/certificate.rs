//! Certificates and ordered chains: in and out of PEM, with the facts that decisions need.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::identity::{SpiffeId, SubjectName};
use crate::public_key::{PublicKey, PublicKeyError};

mod chain;
mod path;
mod text;

pub use chain::{CertificateChain, ChainError};
pub(crate) use path::read_signed;
pub(crate) use text::{decode_strict_pem, encode_pem};

/// One certificate, read once. Cheap to clone.
#[derive(Clone)]
pub struct Certificate(Arc<Inner>);

struct Inner {
    der: Vec<u8>,
    facts: Facts,
    /// Written at the first use: a root is sent with every reply, most others never.
    pem: OnceLock<Box<str>>,
}

/// What is known of a certificate. The signer fills it in for what it has just written, and spares itself the reading.
pub(crate) struct Facts {
    pub(crate) serial: Range<usize>,
    pub(crate) issuer: Range<usize>,
    pub(crate) subject: Range<usize>,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) public_key: PublicKey,
    pub(crate) names: Vec<SubjectName>,
    pub(crate) other_names: usize,
    pub(crate) key_identifier: Option<Range<usize>>,
    pub(crate) authority: CaRights,
    pub(crate) signs_lists: bool,
}

/// Whether a certificate may sign others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CaRights {
    None,
    /// A CA by its basic constraints, whose key usage forbids to sign certificates.
    KeyUsageForbids,
    Ca {
        /// How many further CAs may follow below it.
        path_length: Option<u8>,
    },
}

impl CaRights {
    pub(crate) fn is_ca(self) -> bool {
        matches!(self, Self::Ca { .. })
    }
}

impl Certificate {
    /// Reads one certificate.
    ///
    /// # Errors
    /// When it is not the DER of a certificate, something follows it, or its key is not accepted.
    pub fn from_der(der: Vec<u8>) -> Result<Self, CertificateError> {
        let facts = read_facts(&der)?;
        Ok(Self::known(der, facts))
    }

    pub(crate) fn known(der: Vec<u8>, facts: Facts) -> Self {
        Self(Arc::new(Inner {
            der,
            facts,
            pem: OnceLock::new(),
        }))
    }

    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none, or it does not read.
    pub fn from_pem(text: &[u8]) -> Result<Self, CertificateError> {
        Ok(Self::all_from_pem(text)?.swap_remove(0))
    }

    /// Reads all certificates of a PEM text, in order: at least one. Blocks of other kinds are refused, so that a key
    /// in the wrong file is noticed.
    ///
    /// # Errors
    /// When there is none, or one does not read; the message tells which.
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, CertificateError> {
        let blocks = pem::parse_many(text).map_err(|e| CertificateError::Pem(e.to_string()))?;
        if blocks.is_empty() {
            return Err(CertificateError::Pem("no PEM block in it".into()));
        }
        let read = |(at, block): (usize, pem::Pem)| {
            if !matches!(
                block.tag(),
                LABEL | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE"
            ) {
                return Err(CertificateError::Label {
                    label: block.tag().into(),
                });
            }
            Self::from_der(block.into_contents()).map_err(|cause| CertificateError::InPem {
                number: at + 1,
                cause: Box::new(cause),
            })
        };
        blocks.into_iter().enumerate().map(read).collect()
    }

    /// The DER.
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// One PEM block, ending in a newline.
    pub fn to_pem(&self) -> &str {
        self.0
            .pem
            .get_or_init(|| encode_pem(LABEL, &self.0.der).into())
    }

    /// The DER of the subject.
    pub fn subject_der(&self) -> &[u8] {
        &self.0.der[self.0.facts.subject.clone()]
    }

    /// The DER of the issuer's name.
    pub fn issuer_der(&self) -> &[u8] {
        &self.0.der[self.0.facts.issuer.clone()]
    }

    /// Whether issuer and subject have the same name.
    pub fn is_self_issued(&self) -> bool {
        self.subject_der() == self.issuer_der()
    }

    /// The serial number, as lower-case hexadecimal digits.
    pub fn serial(&self) -> String {
        hex(&self.0.der[self.0.facts.serial.clone()], "")
    }

    /// From when it is valid.
    pub fn not_before(&self) -> OffsetDateTime {
        self.0.facts.not_before
    }

    /// Until when it is valid, that second included.
    pub fn not_after(&self) -> OffsetDateTime {
        self.0.facts.not_after
    }

    /// Whether `now` lies between its dates.
    pub fn is_valid_at(&self, now: OffsetDateTime) -> bool {
        self.not_before() <= now && now <= self.not_after()
    }

    /// Whether it may sign certificates, by its basic constraints and key usage.
    pub fn is_ca(&self) -> bool {
        self.0.facts.authority.is_ca()
    }

    /// Whether it may sign revocation lists: a CA whose key usage, if it has one, includes cRLSign.
    pub(crate) fn may_sign_revocation_lists(&self) -> bool {
        self.0.facts.authority != CaRights::None && self.0.facts.signs_lists
    }

    pub(crate) fn rights(&self) -> CaRights {
        self.0.facts.authority
    }

    /// Its alternative names of the kinds that mesh-ca knows, in order.
    pub fn names(&self) -> &[SubjectName] {
        &self.0.facts.names
    }

    /// How many alternative names it has of other kinds, or malformed ones.
    pub fn other_names(&self) -> usize {
        self.0.facts.other_names
    }

    /// Its SPIFFE names, in order.
    pub fn spiffe_ids(&self) -> impl Iterator<Item = &SpiffeId> {
        self.names().iter().filter_map(|name| match name {
            SubjectName::Spiffe(id) => Some(id),
            SubjectName::Dns(_) | SubjectName::Ip(_) => None,
        })
    }

    /// The certified key.
    pub fn public_key(&self) -> &PublicKey {
        &self.0.facts.public_key
    }

    pub(crate) fn key_identifier(&self) -> Option<&[u8]> {
        let at = self.0.facts.key_identifier.clone()?;
        Some(&self.0.der[at])
    }

    /// The SHA-256 of the DER: pairs of upper-case hexadecimal digits with colons, as OpenSSL prints it.
    pub fn fingerprint(&self) -> String {
        hex(
            ring::digest::digest(&ring::digest::SHA256, self.der()).as_ref(),
            ":",
        )
        .to_uppercase()
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der() == other.der()
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("serial", &self.serial())
            .field("names", &self.names())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// Why bytes are not a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Not a PEM text, or an empty one.
    #[error("not PEM: {0}")]
    Pem(String),
    /// A block of another kind.
    #[error("PEM block {label:?} where a certificate is expected")]
    Label {
        /// The label of the block.
        label: String,
    },
    /// Not the DER of a certificate.
    #[error("not a certificate: {0}")]
    Malformed(String),
    /// The key is of a kind or size that is not accepted.
    #[error(transparent)]
    PublicKey(#[from] PublicKeyError),
    /// One of several does not read.
    #[error("certificate {number} of the PEM text: {cause}")]
    InPem {
        /// Its place, from 1.
        number: usize,
        /// What is wrong with it.
        cause: Box<CertificateError>,
    },
}

pub(crate) fn hex(bytes: &[u8], separator: &str) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 3);
    for (at, byte) in bytes.iter().enumerate() {
        let before = if at == 0 { "" } else { separator };
        // Writing to a string cannot fail.
        let _ = write!(text, "{before}{byte:02x}");
    }
    text
}

fn read_facts(der: &[u8]) -> Result<Facts, CertificateError> {
    let malformed = |cause: &dyn fmt::Display| CertificateError::Malformed(cause.to_string());
    let (rest, parsed) = X509Certificate::from_der(der).map_err(|e| malformed(&e))?;
    if !rest.is_empty() {
        return Err(malformed(&"bytes follow it"));
    }
    let basic = parsed.basic_constraints().map_err(|e| malformed(&e))?;
    let usage = parsed.key_usage().map_err(|e| malformed(&e))?;
    let authority = match (basic.filter(|b| b.value.ca), &usage) {
        (None, _) => CaRights::None,
        (Some(_), Some(usage)) if !usage.value.key_cert_sign() => CaRights::KeyUsageForbids,
        (Some(basic), _) => CaRights::Ca {
            // No path is 255 certificates long.
            path_length: basic
                .value
                .path_len_constraint
                .map(|n| u8::try_from(n).unwrap_or(u8::MAX)),
        },
    };
    let signs_lists = usage.is_none_or(|usage| usage.value.crl_sign());
    let presented = parsed
        .subject_alternative_name()
        .map_err(|e| malformed(&e))?;
    let presented = presented.map_or(&[][..], |san| &san.value.general_names[..]);
    let names: Vec<_> = presented.iter().filter_map(read_name).collect();
    let date =
        |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).map_err(|e| malformed(&e));
    // The parser stops at the first part of a name that it cannot read, and gives out what is in front of it.
    for name in [parsed.issuer(), parsed.subject()] {
        if !is_whole(name.as_raw()) {
            return Err(malformed(&"a name in it does not read"));
        }
    }
    Ok(Facts {
        serial: range_in(der, parsed.raw_serial()).ok_or_else(|| malformed(&"serial number"))?,
        issuer: range_in(der, parsed.issuer().as_raw()).ok_or_else(|| malformed(&"issuer"))?,
        subject: range_in(der, parsed.subject().as_raw()).ok_or_else(|| malformed(&"subject"))?,
        not_before: date(parsed.validity().not_before.timestamp())?,
        not_after: date(parsed.validity().not_after.timestamp())?,
        public_key: PublicKey::from_spki_der(parsed.public_key().raw)?,
        other_names: presented.len() - names.len(),
        names,
        key_identifier: parsed
            .iter_extensions()
            .find_map(|e| match e.parsed_extension() {
                x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => {
                    range_in(der, id.0)
                }
                _ => None,
            }),
        authority,
        signs_lists,
    })
}

fn read_name(name: &GeneralName<'_>) -> Option<SubjectName> {
    match name {
        GeneralName::URI(uri) => uri.parse().ok().map(SubjectName::Spiffe),
        GeneralName::DNSName(name) => name.parse().ok().map(SubjectName::Dns),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|b| IpAddr::V4(Ipv4Addr::from(b))),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|b| IpAddr::V6(Ipv6Addr::from(b))),
            _ => None,
        }
        .map(SubjectName::Ip),
        _ => None,
    }
}

/// Whether the bytes are one value of DER, to its end.
pub(crate) fn is_whole(der: &[u8]) -> bool {
    use der::Decode as _;
    der::AnyRef::from_der(der).is_ok()
}

/// Where `part` lies in `whole`, if it does.
fn range_in(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some(start..end)
}

const LABEL: &str = "CERTIFICATE";

#[cfg(test)]
mod tests;
