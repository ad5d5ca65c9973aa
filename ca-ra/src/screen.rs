//! May this CSR be forwarded to a signer that believes what it says?
//!
//! The rules are those of Istio's registration authority and of cert-manager's istio-csr together,
//! whichever is stricter. Where they contradict each other:
//!
//! - *Names.* Istio takes a subset of the granted names and at most one URI; istio-csr wants the sets to
//!   be equal. Both hold only for one name that is the granted one, which is also what the SPIFFE
//!   specification wants of a certificate. So a grant of several names is refused.
//! - *Extensions.* istio-csr lets two key usages and two extended key usages pass, Istio nothing but
//!   names. No agent sends usages, and signers compare them with what they were told to put in: refused.
//! - *Subject.* Istio takes only an empty organization, istio-csr everything without a common name.
//!   Signers copy the subject into the certificate: only what Istio's agents and ztunnel send passes.
//! - *Other attributes.* Neither looks. But some signers know a second attribute with extensions in it,
//!   and where two readers differ, what was judged is not what is signed: refused.

use std::fmt;

use ca_core::{Csr, CsrError, SignError, SigningRequest, SpiffeId, SubjectName};
use der::asn1::ObjectIdentifier;
use der::{AnyRef, Decode as _, Reader as _, SliceReader, Tag, TagNumber, Tagged as _};

/// A request that asks for exactly the one name that was granted. Nothing else may be forwarded.
#[derive(Clone, Debug)]
pub struct ScreenedRequest {
    request: SigningRequest,
    name: SpiffeId,
}

impl ScreenedRequest {
    /// Judges the CSR of `request` by the names that were granted.
    ///
    /// # Errors
    /// When the CSR asks for anything but the one granted name, or not exactly one SPIFFE ID was granted.
    pub fn screen(request: SigningRequest) -> Result<Self, ScreenError> {
        let name = match request.names() {
            [SubjectName::Spiffe(name)] => name.clone(),
            granted => {
                return Err(ScreenError::NotOneIdentity {
                    granted: granted.len(),
                });
            }
        };
        let csr = request.csr();
        screen_subject(csr)?;
        screen_attributes(csr)?;
        let mut requested = None;
        for extension in csr.requested()? {
            if extension.oid != SUBJECT_ALTERNATIVE_NAME {
                return Err(ScreenError::Extension { oid: extension.oid });
            }
            requested = Some(read_uris(extension.value)?);
        }
        match requested.unwrap_or_default().as_slice() {
            [] => Err(ScreenError::NoName),
            [uri] if *uri == name.as_str().as_bytes() => Ok(Self { request, name }),
            asked => Err(ScreenError::OtherName {
                asked: asked.iter().map(|uri| Uri::from_bytes(uri)).collect(),
                granted: name,
            }),
        }
    }

    /// The CSR to forward. **Send [`Csr::to_pem`] and not the text it was read from**: that may hold
    /// more than was judged.
    pub fn csr(&self) -> &Csr {
        self.request.csr()
    }

    /// The name to be certified.
    pub fn name(&self) -> &SpiffeId {
        &self.name
    }

    /// The whole request, with lifetime and signer.
    pub fn request(&self) -> &SigningRequest {
        &self.request
    }
}

/// Why a CSR must not be forwarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScreenError {
    /// None or several names were granted, or one that is no SPIFFE ID. Not the fault of the CSR.
    #[error(
        "a foreign signer certifies exactly one SPIFFE ID, not {granted} names or another kind"
    )]
    NotOneIdentity {
        /// How many names were granted.
        granted: usize,
    },
    /// What it asks for cannot be read.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// It asks for a subject that is neither empty nor an empty organization.
    #[error("asks for a subject: {}", attributes.join(", "))]
    Subject {
        /// The types of its attributes, such as `2.5.4.3` for a common name.
        attributes: Vec<String>,
    },
    /// It has an attribute that is not the one list of extensions.
    #[error("has attribute {oid} beside its one list of extensions")]
    Attribute {
        /// The type.
        oid: String,
    },
    /// It asks for an extension that is not the list of names, such as the right to be a CA.
    #[error("asks for extension {oid}")]
    Extension {
        /// The type, such as `2.5.29.19` for basic constraints.
        oid: String,
    },
    /// Its list of names is not strict DER.
    #[error("its alternative names cannot be read")]
    MalformedNames,
    /// It asks for a name that is not a URI.
    #[error("asks for a name of kind {kind}")]
    NameKind {
        /// In the words of RFC 5280.
        kind: &'static str,
    },
    /// It asks for no name.
    #[error("asks for no name")]
    NoName,
    /// It asks for another name than the one granted, or for more.
    #[error("asks for {asked:?} where {granted} was granted")]
    OtherName {
        /// What it asks for.
        asked: Vec<Uri>,
        /// What was granted.
        granted: SpiffeId,
    },
}

impl From<ScreenError> for SignError {
    /// In Istio's words, with ours behind them: all that they tell is what the caller itself has sent,
    /// and its own name.
    fn from(error: ScreenError) -> Self {
        Self::Refused(format!("unable to validate SAN Identities in CSR: {error}"))
    }
}

/// A URI as somebody asked for it, cut to a length that a log can bear.
#[derive(Clone, PartialEq, Eq)]
pub struct Uri(String);

impl Uri {
    fn from_bytes(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        Self(text.chars().take(MAX_SHOWN_CHARACTERS).collect())
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn screen_subject(csr: &Csr) -> Result<(), ScreenError> {
    // Bytes are compared, because they are what a signer copies.
    if PERMITTED_SUBJECTS.contains(&csr.subject_der()) {
        return Ok(());
    }
    let attributes = csr.subject()?.into_iter().map(|a| a.oid).collect();
    Err(ScreenError::Subject { attributes })
}

fn screen_attributes(csr: &Csr) -> Result<(), ScreenError> {
    let malformed = |error| ScreenError::Csr(CsrError::Malformed(error));
    match read_attribute_types(csr.der())
        .map_err(malformed)?
        .as_slice()
    {
        [] | [EXTENSION_REQUEST] => Ok(()),
        types => {
            let others = types.iter().find(|oid| **oid != EXTENSION_REQUEST);
            let oid = others.unwrap_or(&EXTENSION_REQUEST).to_string();
            Err(ScreenError::Attribute { oid })
        }
    }
}

/// The attributes of a `CertificationRequest` (RFC 2986). One that holds several values counts as often,
/// since one list of extensions is what every reader agrees on.
fn read_attribute_types(der: &[u8]) -> der::Result<Vec<ObjectIdentifier>> {
    let outer = AnyRef::from_der(der)?;
    let mut outer = SliceReader::new(outer.value())?;
    let mut info = SliceReader::new(AnyRef::decode(&mut outer)?.value())?;
    let (_version, _subject, _key) = (info.tlv_bytes()?, info.tlv_bytes()?, info.tlv_bytes()?);
    let mut types = Vec::new();
    if info.is_finished() {
        return Ok(types);
    }
    let mut attributes = SliceReader::new(AnyRef::decode(&mut info)?.value())?;
    while !attributes.is_finished() {
        let mut attribute = SliceReader::new(AnyRef::decode(&mut attributes)?.value())?;
        let oid = ObjectIdentifier::decode(&mut attribute)?;
        let mut values = SliceReader::new(AnyRef::decode(&mut attribute)?.value())?;
        types.push(oid);
        let mut first = true;
        while !values.is_finished() {
            values.tlv_bytes()?;
            if !std::mem::take(&mut first) {
                types.push(oid);
            }
        }
    }
    Ok(types)
}

/// The names of a subject alternative name extension, all of which must be URIs.
fn read_uris(extension: &[u8]) -> Result<Vec<&[u8]>, ScreenError> {
    let malformed = |_: der::Error| ScreenError::MalformedNames;
    let outer = AnyRef::from_der(extension).map_err(malformed)?;
    if outer.tag() != Tag::Sequence {
        return Err(ScreenError::MalformedNames);
    }
    let mut names = SliceReader::new(outer.value()).map_err(malformed)?;
    let mut uris = Vec::new();
    while !names.is_finished() {
        let name = AnyRef::decode(&mut names).map_err(malformed)?;
        match name.tag() {
            URI => uris.push(name.value()),
            // The class is part of the comparison: a universal tag of number 6 is no URI.
            Tag::ContextSpecific { number, .. } => {
                let kind = usize::try_from(number.value())
                    .ok()
                    .and_then(|number| KINDS_OF_NAME.get(number))
                    .ok_or(ScreenError::MalformedNames)?;
                return Err(ScreenError::NameKind { kind });
            }
            _ => return Err(ScreenError::MalformedNames),
        }
    }
    Ok(uris)
}

const URI: Tag = Tag::ContextSpecific {
    constructed: false,
    number: TagNumber(6),
};

/// `GeneralName` (RFC 5280, 4.2.1.6), by tag number.
const KINDS_OF_NAME: [&str; 9] = [
    "otherName",
    "rfc822Name",
    "dNSName",
    "x400Address",
    "directoryName",
    "ediPartyName",
    "uniformResourceIdentifier",
    "iPAddress",
    "registeredID",
];

/// An empty name, and an organization that is empty as the two kinds of string that agents write.
const PERMITTED_SUBJECTS: [&[u8]; 3] = [
    &[0x30, 0],
    &[0x30, 11, 0x31, 9, 0x30, 7, 0x06, 3, 0x55, 4, 10, 0x0c, 0],
    &[0x30, 11, 0x31, 9, 0x30, 7, 0x06, 3, 0x55, 4, 10, 0x13, 0],
];

const SUBJECT_ALTERNATIVE_NAME: &str = "2.5.29.17";
const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");
const MAX_SHOWN_CHARACTERS: usize = 256;

#[cfg(test)]
mod tests;
