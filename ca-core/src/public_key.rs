//! Public keys as certificates carry them, judged for strength when they are read.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use der::asn1::{BitStringRef, UintRef};
use der::{Decode as _, Reader as _, SliceReader};
use pki_types::{AlgorithmIdentifier, alg_id};

use crate::crypto::Backend;

/// A public key: its `SubjectPublicKeyInfo`, kept byte for byte, of a kind and size that mesh-ca accepts.
#[derive(Clone)]
pub struct PublicKey {
    /// Shared, so that a request, its certificate and the record of it hold one copy.
    spki: Arc<[u8]>,
    kind: PublicKeyKind,
    key: Range<usize>,
}

/// What a public key is, and with that how its owner signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PublicKeyKind {
    /// ECDSA on NIST P-256, signing with SHA-256.
    EcdsaP256,
    /// ECDSA on NIST P-384, signing with SHA-384.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
    /// RSA, signing with PKCS#1 v1.5 and SHA-256.
    Rsa {
        /// The length of the modulus.
        bits: u16,
    },
}

impl PublicKeyKind {
    /// The content of the `AlgorithmIdentifier` of signatures that mesh-ca makes with such a key.
    pub(crate) fn signature_algorithm(self) -> AlgorithmIdentifier {
        match self {
            Self::EcdsaP256 => alg_id::ECDSA_SHA256,
            Self::EcdsaP384 => alg_id::ECDSA_SHA384,
            Self::Ed25519 => alg_id::ED25519,
            Self::Rsa { .. } => alg_id::RSA_PKCS1_SHA256,
        }
    }

    pub(crate) fn key_algorithm(self) -> AlgorithmIdentifier {
        match self {
            Self::EcdsaP256 => alg_id::ECDSA_P256,
            Self::EcdsaP384 => alg_id::ECDSA_P384,
            Self::Ed25519 => alg_id::ED25519,
            Self::Rsa { .. } => alg_id::RSA_ENCRYPTION,
        }
    }
}

impl fmt::Display for PublicKeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcdsaP256 => f.write_str("ECDSA P-256"),
            Self::EcdsaP384 => f.write_str("ECDSA P-384"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Rsa { bits } => write!(f, "RSA-{bits}"),
        }
    }
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7).
    ///
    /// # Errors
    /// When it is not strict DER, or a kind of key or a size that is not accepted: RSA of 2048 to 4096 bits with an
    /// odd exponent of at least 65537, ECDSA on P-256 or P-384 (uncompressed points), Ed25519.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, PublicKeyError> {
        let parts = SpkiParts::read(spki)?;
        let key_start = spki.len() - parts.key.len();
        let kind = parts.judge()?;
        Ok(Self {
            spki: spki.into(),
            kind,
            key: key_start..spki.len(),
        })
    }

    /// From the bare key bits, as signers report them.
    pub(crate) fn from_key_bits(kind: PublicKeyKind, key: &[u8]) -> Result<Self, PublicKeyError> {
        use crate::asn1::{SEQUENCE, bit_string, wrap};
        let algorithm = wrap(SEQUENCE, &[kind.key_algorithm().as_ref()]);
        Self::from_spki_der(&wrap(SEQUENCE, &[&algorithm, &bit_string(key)]))
    }

    /// The whole `SubjectPublicKeyInfo`.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// What it is.
    pub fn kind(&self) -> PublicKeyKind {
        self.kind
    }

    /// The content of the bit string: the point, the Ed25519 key, or the RSA numbers.
    pub(crate) fn key_bits(&self) -> &[u8] {
        &self.spki[self.key.clone()]
    }

    /// The leftmost 160 bits of the key's SHA-256 (RFC 7093, method 1).
    pub fn key_identifier(&self) -> [u8; KEY_IDENTIFIER_BYTES] {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.key_bits());
        let mut identifier = [0; KEY_IDENTIFIER_BYTES];
        identifier.copy_from_slice(&digest.as_ref()[..KEY_IDENTIFIER_BYTES]);
        identifier
    }

    /// Checks a signature whose `AlgorithmIdentifier` has the content `algorithm`.
    ///
    /// Only pairs of key and signature algorithm that belong together are known to a backend; a signature by
    /// SHA-1, or one of another key's kind, has no verifier and fails here.
    pub(crate) fn verify(
        &self,
        backend: &Backend,
        algorithm: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        let key_algorithm = self.kind.key_algorithm();
        let verifier = backend
            .verifiers
            .iter()
            .find(|v| {
                v.public_key_alg_id() == key_algorithm && v.signature_alg_id().as_ref() == algorithm
            })
            .ok_or(VerifyError::Algorithm { key: self.kind })?;
        verifier
            .verify_signature(self.key_bits(), message, signature)
            .map_err(|_| VerifyError::Signature)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.kind)
    }
}

/// A key that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// Not the DER of a public key.
    #[error("not a public key: {0}")]
    Malformed(der::Error),
    /// A kind of key that is not accepted, P-224 and P-521 among them.
    #[error("unsupported public key (accepted: RSA, ECDSA P-256 and P-384, Ed25519)")]
    Unsupported,
    /// Too short to be safe or too long to be fast.
    #[error("RSA key of {bits} bits (accepted: 2048 to 4096)")]
    RsaSize {
        /// The length of the modulus.
        bits: usize,
    },
    /// An exponent that no proper key has.
    #[error("RSA key with an unusual exponent (accepted: odd, 65537 or more, at most 32 bits)")]
    RsaExponent,
}

/// Why a signature does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The signature algorithm is unknown, forbidden (SHA-1, MD5), or not one of this kind of key.
    #[error("signature algorithm not accepted for an {key} key")]
    Algorithm {
        /// The key that should have made it.
        key: PublicKeyKind,
    },
    /// It was not made by this key over these bytes.
    #[error("signature does not verify")]
    Signature,
}

struct SpkiParts<'a> {
    algorithm: &'a [u8],
    key: &'a [u8],
}

impl<'a> SpkiParts<'a> {
    fn read(spki: &'a [u8]) -> Result<Self, PublicKeyError> {
        let read = || {
            let mut reader = SliceReader::new(spki)?;
            let parts = reader.sequence(|r| {
                let algorithm = der::AnyRef::decode(r)?;
                algorithm.header().tag().assert_eq(der::Tag::Sequence)?;
                let key = BitStringRef::decode(r)?;
                let key = key
                    .as_bytes()
                    .ok_or_else(|| r.error(der::ErrorKind::Failed))?;
                Ok::<_, der::Error>(Self {
                    algorithm: algorithm.value(),
                    key,
                })
            })?;
            reader.finish()?;
            Ok(parts)
        };
        read().map_err(PublicKeyError::Malformed)
    }

    fn judge(&self) -> Result<PublicKeyKind, PublicKeyError> {
        let is = |id: AlgorithmIdentifier| self.algorithm == id.as_ref();
        let uncompressed = |bytes: usize| self.key.len() == 1 + 2 * bytes && self.key[0] == 4;
        if is(alg_id::ECDSA_P256) && uncompressed(32) {
            Ok(PublicKeyKind::EcdsaP256)
        } else if is(alg_id::ECDSA_P384) && uncompressed(48) {
            Ok(PublicKeyKind::EcdsaP384)
        } else if is(alg_id::ED25519) && self.key.len() == 32 {
            Ok(PublicKeyKind::Ed25519)
        } else if is(alg_id::RSA_ENCRYPTION) {
            self.judge_rsa()
        } else {
            Err(PublicKeyError::Unsupported)
        }
    }

    fn judge_rsa(&self) -> Result<PublicKeyKind, PublicKeyError> {
        let read = || {
            let mut reader = SliceReader::new(self.key)?;
            let numbers = reader
                .sequence(|r| Ok::<_, der::Error>((UintRef::decode(r)?, UintRef::decode(r)?)))?;
            reader.finish()?;
            Ok(numbers)
        };
        let (modulus, exponent) = read().map_err(PublicKeyError::Malformed)?;
        let first = modulus.as_bytes().first().copied().unwrap_or(0);
        let bits = (modulus.as_bytes().len() * 8).saturating_sub(first.leading_zeros() as usize);
        let Ok(bits @ 2048..=4096) = u16::try_from(bits) else {
            return Err(PublicKeyError::RsaSize { bits });
        };
        let mut wide = [0; 4];
        let bytes = exponent.as_bytes();
        let at = wide
            .len()
            .checked_sub(bytes.len())
            .ok_or(PublicKeyError::RsaExponent)?;
        wide[at..].copy_from_slice(bytes);
        let exponent = u32::from_be_bytes(wide);
        if exponent < 65_537 || exponent % 2 == 0 {
            return Err(PublicKeyError::RsaExponent);
        }
        Ok(PublicKeyKind::Rsa { bits })
    }
}

pub(crate) const KEY_IDENTIFIER_BYTES: usize = 20;
