//! A certificate signing request whose own signature has been checked, with the facts that others judge by.

use std::fmt;
use std::ops::Range;

use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode as _, Reader, SliceReader, Tag, TagNumber};

use crate::asn1::oid;
use crate::certificate::decode_strict_pem;
use crate::certificate::read_signed;
use crate::crypto::{Backend, RING};
use crate::public_key::{PublicKey, PublicKeyError, VerifyError};

mod create;

pub use create::{CreateCsrError, create_ca_csr_pem, create_csr_pem};

/// A PKCS#10 request (RFC 2986) whose sender has proven to hold the private key.
///
/// What it asks for is not a promise of anything: a mesh CA takes the public key from it, and every name from the
/// authenticated caller. [`Csr::requested`] is there for those who forward a request to another signer.
#[derive(Clone)]
pub struct Csr {
    der: Vec<u8>,
    public_key: PublicKey,
    subject: Range<usize>,
    attributes: Range<usize>,
}

impl Csr {
    /// Reads the request of a PEM text with [`RING`].
    ///
    /// # Errors
    /// See [`Csr::from_pem_with`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, CsrError> {
        Self::from_pem_with(pem, &RING)
    }

    /// Reads the request of a PEM text. As with Istio's CA the first block counts, whatever text surrounds it; its
    /// label may be `CERTIFICATE REQUEST` or the older `NEW CERTIFICATE REQUEST`.
    ///
    /// # Errors
    /// When there is no such block, or see [`Csr::from_der_with`].
    pub fn from_pem_with(pem: &[u8], backend: &Backend) -> Result<Self, CsrError> {
        if pem.len() > MAX_BYTES * 2 {
            return Err(CsrError::TooLarge { limit: MAX_BYTES });
        }
        Self::from_vec(decode_pem(pem)?, backend)
    }

    /// Reads a request with [`RING`].
    ///
    /// # Errors
    /// See [`Csr::from_der_with`].
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        Self::from_der_with(der, &RING)
    }

    /// Reads a request: strict DER, nothing behind it, at most 64 KiB.
    ///
    /// # Errors
    /// When it is not a request, its key is of a kind or size that is not accepted, or its signature does not hold.
    pub fn from_der_with(der: &[u8], backend: &Backend) -> Result<Self, CsrError> {
        Self::from_vec(der.to_vec(), backend)
    }

    fn from_vec(der: Vec<u8>, backend: &Backend) -> Result<Self, CsrError> {
        if der.len() > MAX_BYTES {
            return Err(CsrError::TooLarge { limit: MAX_BYTES });
        }
        let outer = read_signed(&der).map_err(CsrError::Malformed)?;
        let inner = Inner::read(outer.message).map_err(CsrError::Malformed)?;
        let public_key = PublicKey::from_spki_der(inner.spki)?;
        public_key.verify(backend, outer.algorithm, outer.message, outer.signature)?;
        let (subject, attributes) = (
            range_in(&der, inner.subject),
            range_in(&der, inner.attributes),
        );
        Ok(Self {
            public_key,
            subject,
            attributes,
            der,
        })
    }

    /// The whole request.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The whole request, as PEM.
    pub fn to_pem(&self) -> String {
        crate::certificate::encode_pem(LABEL, &self.der)
    }

    /// The key to be certified.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The DER of the subject it asks for.
    pub fn subject_der(&self) -> &[u8] {
        &self.der[self.subject.clone()]
    }

    /// The attributes of the subject it asks for, in order: object identifier in dots, and value as text where it is
    /// a string.
    ///
    /// # Errors
    /// When the subject is not a distinguished name.
    pub fn subject(&self) -> Result<Vec<SubjectAttribute>, CsrError> {
        let mut subject = Vec::new();
        read_name(self.subject_der(), |kind, value| {
            subject.push(SubjectAttribute {
                oid: kind.to_string(),
                value: string_of(value),
            });
        })
        .map_err(CsrError::Malformed)?;
        Ok(subject)
    }

    /// Whether the subject has a common name that is not empty: with Istio, the wish for one in the certificate.
    pub fn wants_common_name(&self) -> bool {
        let mut wants = false;
        let read = read_name(self.subject_der(), |kind, value| {
            wants |= kind.as_bytes() == oid::COMMON_NAME && string_of(value).as_deref() != Some("");
        });
        // A subject that cannot be read wishes for nothing: it is never copied into a certificate.
        read.is_ok() && wants
    }

    /// The extensions it asks for, in order, each at most once.
    ///
    /// # Errors
    /// When the attributes are malformed, or name an extension twice.
    pub fn requested(&self) -> Result<Vec<RequestedExtension<'_>>, CsrError> {
        let extensions =
            read_attributes(&self.der[self.attributes.clone()]).map_err(CsrError::Malformed)?;
        for (at, extension) in extensions.iter().enumerate() {
            if extensions[..at]
                .iter()
                .any(|earlier| earlier.oid == extension.oid)
            {
                return Err(CsrError::RepeatedExtension {
                    oid: extension.oid.clone(),
                });
            }
        }
        Ok(extensions)
    }
}

impl fmt::Debug for Csr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Csr({}, {} bytes)",
            self.public_key.kind(),
            self.der.len()
        )
    }
}

/// One attribute of a requested subject.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubjectAttribute {
    /// The type, such as `2.5.4.3` for a common name.
    pub oid: String,
    /// The value, if it is a string of a known kind.
    pub value: Option<String>,
}

/// One extension that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestedExtension<'a> {
    /// The type, such as `2.5.29.17` for subject alternative names.
    pub oid: String,
    /// Whether it is marked critical.
    pub critical: bool,
    /// The DER of the value.
    pub value: &'a [u8],
}

/// Why a text is not a request to be considered. The first two messages are Istio's, word for word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// No PEM block of a request.
    #[error("certificate signing request is not properly encoded")]
    NotPem,
    /// Not the strict DER of a request.
    #[error("failed to parse X.509 certificate signing request")]
    Malformed(#[source] der::Error),
    /// The key is of a kind or size that is not accepted.
    #[error("{0}")]
    PublicKey(#[from] PublicKeyError),
    /// The sender does not hold the private key, or signed in a way that is not accepted.
    #[error("certificate signing request {0}")]
    Signature(#[from] VerifyError),
    /// It asks for one extension twice.
    #[error("certificate signing request names extension {oid} twice")]
    RepeatedExtension {
        /// The type.
        oid: String,
    },
    /// Longer than any honest request.
    #[error("certificate signing request longer than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

/// `CertificationRequestInfo`.
struct Inner<'a> {
    subject: &'a [u8],
    spki: &'a [u8],
    /// The content of `[0]`; empty when it is absent.
    attributes: &'a [u8],
}

impl<'a> Inner<'a> {
    fn read(signed: &'a [u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(signed)?;
        let inner = reader.sequence(|r| {
            if u8::decode(r)? != 0 {
                return Err(r.error(der::ErrorKind::Failed));
            }
            let subject = r.tlv_bytes()?;
            let spki = r.tlv_bytes()?;
            let mut attributes: &[u8] = &subject[..0];
            if !r.is_finished() {
                let any = AnyRef::decode(r)?;
                let expected = Tag::ContextSpecific {
                    constructed: true,
                    number: TagNumber(0),
                };
                any.header().tag().assert_eq(expected)?;
                attributes = any.value();
            }
            Ok::<_, der::Error>(Self {
                subject,
                spki,
                attributes,
            })
        })?;
        reader.finish()?;
        Ok(inner)
    }
}

fn sequence_content<'a, R: Reader<'a>>(reader: &mut R) -> der::Result<&'a [u8]> {
    let any = AnyRef::decode(reader)?;
    any.header().tag().assert_eq(Tag::Sequence)?;
    Ok(any.value())
}

/// Shows `each` attribute of a distinguished name, in order.
fn read_name(der: &[u8], mut each: impl FnMut(Oid, AnyRef<'_>)) -> der::Result<()> {
    let mut rest = SliceReader::new(AnyRef::from_der(der)?.value())?;
    while !rest.is_finished() {
        let set = AnyRef::decode(&mut rest)?;
        set.header().tag().assert_eq(Tag::Set)?;
        let mut members = SliceReader::new(set.value())?;
        while !members.is_finished() {
            members.sequence(|r| {
                each(Oid::decode(r)?, AnyRef::decode(r)?);
                Ok::<_, der::Error>(())
            })?;
        }
    }
    Ok(())
}

fn string_of(any: AnyRef<'_>) -> Option<String> {
    match any.header().tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString => {
            String::from_utf8(any.value().into()).ok()
        }
        Tag::BmpString => {
            let units = any
                .value()
                .chunks(2)
                .map(|c| u16::from_be_bytes([c[0], *c.get(1).unwrap_or(&0)]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

fn read_attributes(content: &[u8]) -> der::Result<Vec<RequestedExtension<'_>>> {
    let mut extensions = Vec::new();
    let mut rest = SliceReader::new(content)?;
    while !rest.is_finished() {
        rest.sequence(|r| {
            let kind = Oid::decode(r)?;
            let values = AnyRef::decode(r)?;
            values.header().tag().assert_eq(Tag::Set)?;
            if kind.as_bytes() == oid::EXTENSION_REQUEST {
                read_extensions(values.value(), &mut extensions)?;
            }
            Ok::<_, der::Error>(())
        })?;
    }
    Ok(extensions)
}

fn read_extensions<'a>(set: &'a [u8], into: &mut Vec<RequestedExtension<'a>>) -> der::Result<()> {
    let mut lists = SliceReader::new(set)?;
    while !lists.is_finished() {
        let mut list = SliceReader::new(sequence_content(&mut lists)?)?;
        while !list.is_finished() {
            list.sequence(|r| {
                let oid = Oid::decode(r)?.to_string();
                let critical = Tag::peek(r)? == Tag::Boolean && bool::decode(r)?;
                let value = <&OctetStringRef>::decode(r)?.as_bytes();
                into.push(RequestedExtension {
                    oid,
                    critical,
                    value,
                });
                Ok::<_, der::Error>(())
            })?;
        }
    }
    Ok(())
}

/// Where `part`, a slice of `whole`, lies in it.
fn range_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// The fast strict decoder first; the patient one for what it refuses: old labels, text in front, odd line lengths.
fn decode_pem(text: &[u8]) -> Result<Vec<u8>, CsrError> {
    if let Some(der) = decode_strict_pem(LABEL, text) {
        return Ok(der);
    }
    let block = pem::parse(text).map_err(|_| CsrError::NotPem)?;
    match block.tag() {
        LABEL | "NEW CERTIFICATE REQUEST" => Ok(block.into_contents()),
        _ => Err(CsrError::NotPem),
    }
}

type Oid = der::asn1::ObjectIdentifier;

const LABEL: &str = "CERTIFICATE REQUEST";
/// Room for an RSA-4096 key, its signature and a hundred long names; istio's gRPC limit is 4 MiB for the message.
const MAX_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
