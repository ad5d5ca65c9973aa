//! What a certificate contains: a pure function of the issuer, the subject, the dates and the serial number.
//!
//! The parts that depend on the issuer alone are encoded once, when the issuer is made; what is left for each
//! certificate is a copy and its signature. The contents follow Istio's templates; where they differ, the constant
//! says why.

use std::borrow::Cow;
use std::net::IpAddr;

use time::OffsetDateTime;

use crate::asn1::{
    self, BOOLEAN, INTEGER, OCTET_STRING, SEQUENCE, SET, UTF8_STRING, context, context_primitive,
    encoded_len, extension, oid, put, put_header, put_time, time_len, wrap,
};
use crate::certificate::{CaRights, Certificate, Facts};
use crate::identity::{SubjectName, TrustDomain};
use crate::key::{KeyError, SigningKey};
use crate::public_key::{KEY_IDENTIFIER_BYTES, PublicKey, PublicKeyKind};

/// All that certificates of one issuer have in common, already encoded.
#[derive(Clone, Debug)]
pub(crate) struct IssuerTemplate {
    /// Signature algorithm and issuer name: what follows the serial number.
    after_serial: Vec<u8>,
    signature_algorithm: Vec<u8>,
    /// So that a certificate is written into one buffer that never grows.
    longest_signature: usize,
    issuer_len: usize,
    authority_key_identifier: Vec<u8>,
    leaf_rsa: Vec<u8>,
    leaf_other: Vec<u8>,
}

/// What one certificate says of its subject.
pub(crate) struct Subject<'a> {
    pub(crate) public_key: &'a PublicKey,
    pub(crate) common_name: Option<&'a str>,
    pub(crate) names: &'a [SubjectName],
}

/// All that varies between certificates of one issuer, except dates and serial number.
struct Contents<'a> {
    subject_name: &'a [u8],
    public_key: &'a PublicKey,
    key_identifier: [u8; KEY_IDENTIFIER_BYTES],
    fixed_extensions: &'a [u8],
    names: &'a [SubjectName],
    rights: CaRights,
}

/// The dates of one certificate, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

pub(crate) type Serial = [u8; SERIAL_BYTES];

impl IssuerTemplate {
    /// For certificates that the owner of `issuer` signs.
    pub(crate) fn of(issuer: &Certificate) -> Self {
        let identifier = issuer.key_identifier().map_or_else(
            || issuer.public_key().key_identifier().to_vec(),
            <[u8]>::to_vec,
        );
        Self::new(
            issuer.subject_der(),
            issuer.public_key().kind(),
            Some(&identifier),
        )
    }

    fn new(issuer_name: &[u8], signer: PublicKeyKind, key_identifier: Option<&[u8]>) -> Self {
        let signature_algorithm = wrap(SEQUENCE, &[signer.signature_algorithm().as_ref()]);
        let authority_key_identifier = key_identifier.map(|id| {
            let id = wrap(context_primitive(0), &[id]);
            extension(
                oid::AUTHORITY_KEY_IDENTIFIER,
                false,
                &[&wrap(SEQUENCE, &[&id])],
            )
        });
        let leaf = |usage: &[u8]| {
            [
                key_usage(usage),
                extended_key_usage(),
                basic_constraints_of_leaf(),
            ]
            .concat()
        };
        Self {
            after_serial: [&signature_algorithm[..], issuer_name].concat(),
            issuer_len: issuer_name.len(),
            signature_algorithm,
            longest_signature: longest_signature(signer),
            authority_key_identifier: authority_key_identifier.unwrap_or_default(),
            leaf_rsa: leaf(DIGITAL_SIGNATURE_AND_KEY_ENCIPHERMENT),
            leaf_other: leaf(DIGITAL_SIGNATURE),
        }
    }

    /// Signs a workload's certificate.
    pub(crate) fn sign_leaf(
        &self,
        signer: &dyn SigningKey,
        subject: &Subject<'_>,
        validity: Validity,
        serial: &Serial,
    ) -> Result<Certificate, KeyError> {
        let fixed_extensions = match subject.public_key.kind() {
            PublicKeyKind::Rsa { .. } => &self.leaf_rsa,
            _ => &self.leaf_other,
        };
        let contents = Contents {
            subject_name: &encode_common_name(subject.common_name),
            public_key: subject.public_key,
            key_identifier: subject.public_key.key_identifier(),
            fixed_extensions,
            names: subject.names,
            rights: CaRights::None,
        };
        self.sign(signer, &contents, validity, serial)
    }

    /// Signs the certificate of a CA below this issuer.
    pub(crate) fn sign_ca(
        &self,
        signer: &dyn SigningKey,
        public_key: &PublicKey,
        ca: &CaContents<'_>,
        validity: Validity,
        serial: &Serial,
    ) -> Result<Certificate, KeyError> {
        let contents = Contents {
            subject_name: &ca.name(),
            public_key,
            key_identifier: public_key.key_identifier(),
            fixed_extensions: &ca.extensions(),
            names: &[],
            rights: ca.rights(),
        };
        self.sign(signer, &contents, validity, serial)
    }

    fn sign(
        &self,
        signer: &dyn SigningKey,
        contents: &Contents<'_>,
        validity: Validity,
        serial: &Serial,
    ) -> Result<Certificate, KeyError> {
        let &Contents {
            subject_name,
            public_key,
            key_identifier,
            fixed_extensions,
            ..
        } = contents;
        let names = AlternativeNames::of(contents.names);
        let extensions_len = fixed_extensions.len()
            + SUBJECT_KEY_IDENTIFIER_LEN
            + self.authority_key_identifier.len()
            + names.extension_len();
        let validity_len = time_len(validity.not_before) + time_len(validity.not_after);
        let spki = public_key.spki_der();
        let content = VERSION_3.len()
            + encoded_len(SERIAL_BYTES)
            + self.after_serial.len()
            + encoded_len(validity_len)
            + subject_name.len()
            + spki.len()
            + encoded_len(encoded_len(extensions_len));

        // What is to be signed comes first, the signature behind it.
        let mut der = Vec::with_capacity(encoded_len(
            encoded_len(content)
                + self.signature_algorithm.len()
                + encoded_len(1 + self.longest_signature),
        ));
        put_header(&mut der, SEQUENCE, content);
        der.extend_from_slice(VERSION_3);
        let serial_at = der.len() + 2;
        put(&mut der, INTEGER, serial);
        let issuer_at = der.len() + self.signature_algorithm.len();
        der.extend_from_slice(&self.after_serial);
        put_header(&mut der, SEQUENCE, validity_len);
        put_time(&mut der, validity.not_before);
        put_time(&mut der, validity.not_after);
        let subject_at = der.len();
        der.extend_from_slice(subject_name);
        der.extend_from_slice(spki);
        put_header(&mut der, context(3), encoded_len(extensions_len));
        put_header(&mut der, SEQUENCE, extensions_len);
        der.extend_from_slice(fixed_extensions);
        der.extend_from_slice(SUBJECT_KEY_IDENTIFIER_HEAD);
        let key_identifier_at = der.len();
        der.extend_from_slice(&key_identifier);
        der.extend_from_slice(&self.authority_key_identifier);
        names.put_extension(&mut der);
        debug_assert_eq!(der.len(), encoded_len(content));

        let signature = signer.sign(&der)?;
        der.extend_from_slice(&self.signature_algorithm);
        put_header(&mut der, asn1::BIT_STRING, 1 + signature.len());
        der.push(0);
        der.extend_from_slice(&signature);
        // The outermost header is known last, as signatures differ in length. It turns to the front.
        let whole = der.len();
        put_header(&mut der, SEQUENCE, whole);
        let shift = der.len() - whole;
        der.rotate_right(shift);

        let at = |start: usize, length: usize| shift + start..shift + start + length;
        Ok(Certificate::known(
            der,
            Facts {
                serial: at(serial_at, SERIAL_BYTES),
                issuer: at(issuer_at, self.issuer_len),
                subject: at(subject_at, subject_name.len()),
                not_before: validity.not_before,
                not_after: validity.not_after,
                public_key: public_key.clone(),
                names: contents.names.to_vec(),
                other_names: 0,
                key_identifier: Some(at(key_identifier_at, KEY_IDENTIFIER_BYTES)),
                authority: contents.rights,
                signs_lists: contents.rights.is_ca(),
            },
        ))
    }
}

/// What the certificate of a CA says, beside its key.
pub(crate) struct CaContents<'a> {
    pub(crate) organization: &'a str,
    pub(crate) common_name: Option<&'a str>,
    pub(crate) path_length: Option<u8>,
    /// The only trust domain that names below it may lie in.
    pub(crate) permitted: Option<&'a TrustDomain>,
}

impl CaContents<'_> {
    fn name(&self) -> Vec<u8> {
        let organization = attribute(oid::ORGANIZATION, self.organization);
        let common_name = self
            .common_name
            .map(|name| attribute(oid::COMMON_NAME, name))
            .unwrap_or_default();
        wrap(SEQUENCE, &[&organization, &common_name])
    }

    fn extensions(&self) -> Vec<u8> {
        let constraints = self
            .permitted
            .map(permitted_trust_domain)
            .unwrap_or_default();
        [
            key_usage(CERT_AND_CRL_SIGN),
            basic_constraints_of_ca(self.path_length),
            constraints,
        ]
        .concat()
    }

    fn rights(&self) -> CaRights {
        CaRights::Ca {
            path_length: self.path_length,
        }
    }
}

/// Signs the certificate of a new root with its own key.
pub(crate) fn sign_root(
    key: &dyn SigningKey,
    ca: &CaContents<'_>,
    validity: Validity,
    serial: &Serial,
) -> Result<Certificate, KeyError> {
    let identifier = key.public_key().key_identifier();
    sign_self(key, &ca.name(), identifier, ca, validity, serial)
}

/// Signs a new certificate for the key of the root `old`, under its name and key identifier to the byte: what the old
/// one has signed leads to the new one as well.
pub(crate) fn sign_renewed_root(
    key: &dyn SigningKey,
    old: &Certificate,
    validity: Validity,
    serial: &Serial,
) -> Result<Certificate, KeyError> {
    let path_length = match old.rights() {
        CaRights::Ca { path_length } => path_length,
        CaRights::None | CaRights::KeyUsageForbids => None,
    };
    let ca = CaContents {
        organization: "",
        common_name: None,
        path_length,
        permitted: None,
    };
    let identifier = old.key_identifier().and_then(|id| id.try_into().ok());
    let identifier = identifier.unwrap_or_else(|| key.public_key().key_identifier());
    sign_self(key, old.subject_der(), identifier, &ca, validity, serial)
}

fn sign_self(
    key: &dyn SigningKey,
    name: &[u8],
    key_identifier: [u8; KEY_IDENTIFIER_BYTES],
    ca: &CaContents<'_>,
    validity: Validity,
    serial: &Serial,
) -> Result<Certificate, KeyError> {
    // A root names no authority above itself.
    let template = IssuerTemplate::new(name, key.public_key().kind(), None);
    let contents = Contents {
        subject_name: name,
        public_key: key.public_key(),
        key_identifier,
        fixed_extensions: &ca.extensions(),
        names: &[],
        rights: ca.rights(),
    };
    template.sign(key, &contents, validity, serial)
}

/// A new serial number: 16 bytes of which 126 bits are random. The two top bits are fixed, so that it is positive and
/// its length the same each time. `None` when the system has no randomness.
pub(crate) fn random_serial() -> Option<Serial> {
    let mut serial = [0; SERIAL_BYTES];
    crate::random::fill(&mut serial).then(|| {
        serial[0] = serial[0] & 0x3f | 0x40;
        serial
    })
}

/// The names of a subject, measured before they are written.
struct AlternativeNames<'a> {
    names: &'a [SubjectName],
    content: usize,
}

impl<'a> AlternativeNames<'a> {
    fn of(names: &'a [SubjectName]) -> Self {
        let content = names
            .iter()
            .map(|name| encoded_len(Self::bytes(name)))
            .sum();
        Self { names, content }
    }

    fn bytes(name: &SubjectName) -> usize {
        match name {
            SubjectName::Spiffe(id) => id.as_str().len(),
            SubjectName::Dns(name) => name.as_str().len(),
            SubjectName::Ip(IpAddr::V4(_)) => 4,
            SubjectName::Ip(IpAddr::V6(_)) => 16,
        }
    }

    fn inner_len(&self) -> usize {
        SAN_HEAD.len() + encoded_len(encoded_len(self.content))
    }

    fn extension_len(&self) -> usize {
        if self.names.is_empty() {
            0
        } else {
            encoded_len(self.inner_len())
        }
    }

    /// Critical always: mesh certificates have an empty subject, or one that names nobody (RFC 5280, 4.2.1.6).
    fn put_extension(&self, out: &mut Vec<u8>) {
        if self.names.is_empty() {
            return;
        }
        put_header(out, SEQUENCE, self.inner_len());
        out.extend_from_slice(SAN_HEAD);
        put_header(out, OCTET_STRING, encoded_len(self.content));
        put_header(out, SEQUENCE, self.content);
        for name in self.names {
            match name {
                SubjectName::Spiffe(id) => put(out, context_primitive(6), id.as_str().as_bytes()),
                SubjectName::Dns(name) => put(out, context_primitive(2), name.as_str().as_bytes()),
                SubjectName::Ip(IpAddr::V4(address)) => {
                    put(out, context_primitive(7), &address.octets());
                }
                SubjectName::Ip(IpAddr::V6(address)) => {
                    put(out, context_primitive(7), &address.octets());
                }
            }
        }
    }
}

fn encode_common_name(name: Option<&str>) -> Cow<'static, [u8]> {
    match name {
        None => EMPTY_NAME.into(),
        Some(name) => wrap(SEQUENCE, &[&attribute(oid::COMMON_NAME, name)]).into(),
    }
}

fn attribute(kind: &[u8], value: &str) -> Vec<u8> {
    let pair = wrap(
        SEQUENCE,
        &[
            &wrap(asn1::OID, &[kind]),
            &wrap(UTF8_STRING, &[value.as_bytes()]),
        ],
    );
    wrap(SET, &[&pair])
}

fn key_usage(bits: &[u8]) -> Vec<u8> {
    extension(oid::KEY_USAGE, true, &[&wrap(asn1::BIT_STRING, &[bits])])
}

fn extended_key_usage() -> Vec<u8> {
    let usages = [oid::SERVER_AUTH, oid::CLIENT_AUTH]
        .map(|usage| wrap(asn1::OID, &[usage]))
        .concat();
    extension(
        oid::EXTENDED_KEY_USAGE,
        false,
        &[&wrap(SEQUENCE, &[&usages])],
    )
}

fn basic_constraints_of_leaf() -> Vec<u8> {
    extension(oid::BASIC_CONSTRAINTS, true, &[&wrap(SEQUENCE, &[])])
}

fn basic_constraints_of_ca(path_length: Option<u8>) -> Vec<u8> {
    // An INTEGER is signed: from 128 on it needs a leading zero.
    let length = path_length.map(|n| {
        if n < 0x80 {
            wrap(INTEGER, &[&[n]])
        } else {
            wrap(INTEGER, &[&[0, n]])
        }
    });
    let value = wrap(
        SEQUENCE,
        &[&[BOOLEAN, 1, 0xff], &length.unwrap_or_default()],
    );
    extension(oid::BASIC_CONSTRAINTS, true, &[&value])
}

/// `NameConstraints { permittedSubtrees { { uniformResourceIdentifier host } } }` (RFC 5280, 4.2.1.10): of a URI the host
/// is compared, which in a SPIFFE ID is the trust domain.
fn permitted_trust_domain(domain: &TrustDomain) -> Vec<u8> {
    let subtree = wrap(
        SEQUENCE,
        &[&wrap(context_primitive(6), &[domain.as_str().as_bytes()])],
    );
    extension(
        oid::NAME_CONSTRAINTS,
        true,
        &[&wrap(SEQUENCE, &[&wrap(context(0), &[&subtree])])],
    )
}

/// ECDSA writes two numbers in DER, each as long as the curve's order or a byte longer.
fn longest_signature(signer: PublicKeyKind) -> usize {
    match signer {
        PublicKeyKind::EcdsaP256 => 72,
        PublicKeyKind::EcdsaP384 => 104,
        PublicKeyKind::Ed25519 => 64,
        PublicKeyKind::Rsa { bits } => usize::from(bits).div_ceil(8),
    }
}

const EMPTY_NAME: &[u8] = &[SEQUENCE, 0];
const VERSION_3: &[u8] = &[0xa0, 3, 2, 1, 2];
pub(crate) const SERIAL_BYTES: usize = 16;
/// For certificates that are signed to be looked at and thrown away.
pub(crate) const PROBE_SERIAL: Serial = [1; SERIAL_BYTES];

// Key usages: the count of unused bits, then the bits (RFC 5280, 4.2.1.3).
/// Istio sets keyEncipherment for every key; only RSA keys can encipher one (RFC 8813, 3).
const DIGITAL_SIGNATURE: &[u8] = &[7, 0x80];
const DIGITAL_SIGNATURE_AND_KEY_ENCIPHERMENT: &[u8] = &[5, 0xa0];
/// Istio leaves cRLSign out, and its roots can then not sign the revocation lists that Envoy asks for.
const CERT_AND_CRL_SIGN: &[u8] = &[1, 0x06];

/// `SEQUENCE { OID 2.5.29.14, OCTET STRING { OCTET STRING (20) } }`, up to the identifier itself.
const SUBJECT_KEY_IDENTIFIER_HEAD: &[u8] = &[
    SEQUENCE,
    29,
    asn1::OID,
    3,
    0x55,
    0x1d,
    14,
    OCTET_STRING,
    22,
    OCTET_STRING,
    20,
];
const SUBJECT_KEY_IDENTIFIER_LEN: usize = SUBJECT_KEY_IDENTIFIER_HEAD.len() + KEY_IDENTIFIER_BYTES;
/// `OID 2.5.29.17, BOOLEAN TRUE`.
const SAN_HEAD: &[u8] = &[asn1::OID, 3, 0x55, 0x1d, 17, BOOLEAN, 1, 0xff];
