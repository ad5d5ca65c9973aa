//! Private keys: make, load, use, wipe; and the seam for keys that never leave a device.

use std::fmt;
use std::sync::Arc;

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef};
use der::{Decode as _, Reader as _, SliceReader, Tag, TagNumber};
use pki_types::{AlgorithmIdentifier, alg_id};
use zeroize::Zeroizing;

use crate::asn1::{INTEGER, OCTET_STRING, SEQUENCE, bit_string, context, wrap};
use crate::crypto::{Backend, RING, SignFn};
use crate::public_key::{PublicKey, PublicKeyError, PublicKeyKind};

/// A key that can sign: all that a CA needs of one, so that it may live in a device or a service.
///
/// A signature is made the way [`PublicKey::kind`] says, and is encoded as certificates carry it: DER for ECDSA,
/// the bare bytes for Ed25519 and RSA. The call may block.
pub trait SigningKey: Send + Sync + fmt::Debug {
    /// The public half.
    fn public_key(&self) -> &PublicKey;

    /// Signs `message`, which is hashed here.
    ///
    /// # Errors
    /// [`KeyError::Sign`] when the library or the device refuses.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;
}

/// The kinds of key that mesh-ca makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// ECDSA on NIST P-256: the default, and 35 times faster to sign with than RSA-2048.
    #[default]
    EcdsaP256,
    /// ECDSA on NIST P-384.
    EcdsaP384,
    /// Ed25519. Envoy does not take such certificates.
    Ed25519,
    /// RSA of 2048 bits.
    Rsa2048,
    /// RSA of 3072 bits.
    Rsa3072,
    /// RSA of 4096 bits.
    Rsa4096,
}

/// A private key in memory. Its encoded form is wiped when the last copy is dropped; what the cryptographic library
/// holds is the library's to wipe.
#[derive(Clone)]
pub struct PrivateKey(Arc<Held>);

struct Held {
    pkcs8: Zeroizing<Vec<u8>>,
    public: PublicKey,
    sign: Box<SignFn>,
}

impl PrivateKey {
    /// Makes a key with [`RING`].
    ///
    /// # Errors
    /// See [`PrivateKey::generate_with`].
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        Self::generate_with(kind, &RING)
    }

    /// Makes a key.
    ///
    /// # Errors
    /// When the backend cannot make keys of this kind (ring: RSA), or has no randomness.
    pub fn generate_with(kind: KeyKind, backend: &Backend) -> Result<Self, KeyError> {
        let pkcs8 = (backend.generate)(kind)?;
        Self::from_pkcs8(&pkcs8, backend)
    }

    /// Loads the first private key of a PEM text with [`RING`].
    ///
    /// # Errors
    /// See [`PrivateKey::from_pem_with`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        Self::from_pem_with(pem, &RING)
    }

    /// Loads the first private key of a PEM text: `PRIVATE KEY` (PKCS#8), `EC PRIVATE KEY` (SEC 1) or
    /// `RSA PRIVATE KEY` (PKCS#1), not encrypted.
    ///
    /// # Errors
    /// When there is none, it is encrypted, of a kind or size that is not accepted, or its two halves do not match.
    pub fn from_pem_with(text: &[u8], backend: &Backend) -> Result<Self, KeyError> {
        let blocks = pem::parse_many(text).map_err(|e| KeyError::Malformed(e.to_string()))?;
        // `openssl ecparam -genkey` writes a block of parameters in front of the key.
        let blocks = blocks
            .into_iter()
            .find(|block| block.tag() != "EC PARAMETERS");
        let block = blocks.ok_or_else(|| KeyError::Malformed("no PEM block in it".into()))?;
        let label = block.tag().to_owned();
        let der = Zeroizing::new(block.into_contents());
        match label.as_str() {
            "PRIVATE KEY" => Self::from_pkcs8(&der, backend),
            "EC PRIVATE KEY" => Self::load(&KeyParts::from_sec1(&der, None)?, backend),
            "RSA PRIVATE KEY" => Self::load(&KeyParts::Rsa { pkcs1: &der }, backend),
            _ => Err(KeyError::Label { label }),
        }
    }

    /// The key as PKCS#8 PEM, which every tool reads. **Write it to a file of mode 0600 only.**
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let block = pem::Pem::new("PRIVATE KEY", self.0.pkcs8.to_vec());
        let text = Zeroizing::new(pem::encode_config(&block, config));
        // The copy inside the block would outlive us in freed memory.
        drop(Zeroizing::new(block.into_contents()));
        text
    }

    /// The key as PKCS#8 DER.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.0.pkcs8
    }

    fn from_pkcs8(der: &[u8], backend: &Backend) -> Result<Self, KeyError> {
        Self::load(&KeyParts::from_pkcs8(der)?, backend)
    }

    fn load(parts: &KeyParts<'_>, backend: &Backend) -> Result<Self, KeyError> {
        let loaded = (backend.load)(parts)?;
        let public = PublicKey::from_key_bits(parts.public_kind(), &loaded.public)?;
        let pkcs8 = parts.to_pkcs8(&loaded.public);
        Ok(Self(Arc::new(Held {
            pkcs8,
            public,
            sign: loaded.sign,
        })))
    }
}

impl SigningKey for PrivateKey {
    fn public_key(&self) -> &PublicKey {
        &self.0.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        (self.0.sign)(message)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, redacted)", self.0.public.kind())
    }
}

/// Why a private key cannot be had or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not the encoding of a private key.
    #[error("not a private key: {0}")]
    Malformed(String),
    /// A PEM block of something else, or an encrypted key.
    #[error(
        "not a private key: PEM block {label:?} (accepted: PRIVATE KEY, EC PRIVATE KEY, RSA PRIVATE KEY, unencrypted)"
    )]
    Label {
        /// The label of the block.
        label: String,
    },
    /// A kind or size that is not accepted.
    #[error(transparent)]
    Unsupported(#[from] PublicKeyError),
    /// The cryptographic library refuses it.
    #[error("private key rejected: {0}")]
    Rejected(String),
    /// The backend makes no keys of this kind.
    #[error("{backend} cannot make keys of kind {kind:?}")]
    CannotGenerate {
        /// The kind asked for.
        kind: KeyKind,
        /// The backend asked.
        backend: &'static str,
    },
    /// No key was made.
    #[error("key generation failed")]
    Generate,
    /// No signature was made.
    #[error("signing failed")]
    Sign,
}

/// A private key taken apart: what the three file formats have in common.
pub(crate) enum KeyParts<'a> {
    Ec {
        curve: Curve,
        scalar: &'a [u8],
        public: Option<&'a [u8]>,
    },
    Ed25519 {
        seed: &'a [u8],
    },
    Rsa {
        pkcs1: &'a [u8],
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Curve {
    fn from_algorithm(content: &[u8]) -> Result<Self, KeyError> {
        [Self::P256, Self::P384]
            .into_iter()
            .find(|curve| curve.kind().key_algorithm().as_ref() == content)
            .ok_or(KeyError::Unsupported(PublicKeyError::Unsupported))
    }

    fn kind(self) -> PublicKeyKind {
        match self {
            Self::P256 => PublicKeyKind::EcdsaP256,
            Self::P384 => PublicKeyKind::EcdsaP384,
        }
    }

    /// The named curve as an object identifier: what an `AlgorithmIdentifier` has behind `id-ecPublicKey`.
    fn oid_der(self) -> &'static [u8] {
        match self {
            Self::P256 => &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
            Self::P384 => &[0x06, 5, 0x2b, 0x81, 4, 0, 0x22],
        }
    }

    /// `ECPrivateKey` (RFC 5915).
    pub(crate) fn sec1_der(self, scalar: &[u8], public: Option<&[u8]>) -> Zeroizing<Vec<u8>> {
        let public = public
            .map(|bits| wrap(context(1), &[&bit_string(bits)]))
            .unwrap_or_default();
        let parameters = wrap(context(0), &[self.oid_der()]);
        let scalar = Zeroizing::new(wrap(OCTET_STRING, &[scalar]));
        Zeroizing::new(wrap(
            SEQUENCE,
            &[&[INTEGER, 1, 1], &scalar, &parameters, &public],
        ))
    }
}

impl<'a> KeyParts<'a> {
    /// `PrivateKeyInfo` (RFC 5208) and `OneAsymmetricKey` (RFC 5958).
    fn from_pkcs8(der: &'a [u8]) -> Result<Self, KeyError> {
        let read = || {
            let mut reader = SliceReader::new(der)?;
            let parts = reader.sequence(|r| {
                u8::decode(r)?;
                let algorithm = AnyRef::decode(r)?;
                algorithm.header().tag().assert_eq(Tag::Sequence)?;
                let key = <&OctetStringRef>::decode(r)?;
                // Attributes and the public key may follow; the public key is computed anew.
                while !r.is_finished() {
                    AnyRef::decode(r)?;
                }
                Ok::<_, der::Error>((algorithm.value(), key.as_bytes()))
            })?;
            reader.finish()?;
            Ok(parts)
        };
        let (algorithm, key) = read().map_err(malformed)?;
        let is = |id: AlgorithmIdentifier| algorithm == id.as_ref();
        if is(alg_id::RSA_ENCRYPTION) {
            Ok(Self::Rsa { pkcs1: key })
        } else if is(alg_id::ED25519) {
            let seed = <&OctetStringRef>::from_der(key).map_err(malformed)?;
            Ok(Self::Ed25519 {
                seed: seed.as_bytes(),
            })
        } else {
            Self::from_sec1(key, Some(Curve::from_algorithm(algorithm)?))
        }
    }

    fn from_sec1(der: &'a [u8], curve: Option<Curve>) -> Result<Self, KeyError> {
        let read = || {
            let mut reader = SliceReader::new(der)?;
            let parts = reader.sequence(|r| {
                u8::decode(r)?;
                let scalar = <&OctetStringRef>::decode(r)?.as_bytes();
                let parameters =
                    r.context_specific::<ObjectIdentifier>(TagNumber(0), der::TagMode::Explicit)?;
                let public =
                    r.context_specific::<BitStringRef<'_>>(TagNumber(1), der::TagMode::Explicit)?;
                Ok::<_, der::Error>((scalar, parameters, public))
            })?;
            reader.finish()?;
            Ok(parts)
        };
        let (scalar, parameters, public) = read().map_err(malformed)?;
        let named = parameters.and_then(|oid| {
            [Curve::P256, Curve::P384]
                .into_iter()
                .find(|curve| &curve.oid_der()[2..] == oid.as_bytes())
        });
        let curve = curve
            .or(named)
            .ok_or(KeyError::Unsupported(PublicKeyError::Unsupported))?;
        Ok(Self::Ec {
            curve,
            scalar,
            public: public.and_then(|bits| bits.as_bytes()),
        })
    }

    fn public_kind(&self) -> PublicKeyKind {
        match self {
            Self::Ec { curve, .. } => curve.kind(),
            Self::Ed25519 { .. } => PublicKeyKind::Ed25519,
            // The size is read from the key itself.
            Self::Rsa { .. } => PublicKeyKind::Rsa { bits: 0 },
        }
    }

    /// One encoding for every source, with the public half in it, so that any library loads it again.
    fn to_pkcs8(&self, public: &[u8]) -> Zeroizing<Vec<u8>> {
        let key = match self {
            Self::Ec { curve, scalar, .. } => curve.sec1_der(scalar, Some(public)),
            Self::Ed25519 { seed } => Zeroizing::new(wrap(OCTET_STRING, &[seed])),
            Self::Rsa { pkcs1 } => Zeroizing::new(pkcs1.to_vec()),
        };
        let algorithm = wrap(SEQUENCE, &[self.public_kind().key_algorithm().as_ref()]);
        let key = Zeroizing::new(wrap(OCTET_STRING, &[&key]));
        Zeroizing::new(wrap(SEQUENCE, &[&[INTEGER, 1, 0], &algorithm, &key]))
    }
}

fn malformed(error: der::Error) -> KeyError {
    KeyError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests;
