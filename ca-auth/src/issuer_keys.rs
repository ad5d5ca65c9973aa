//! The public keys of a token issuer, and which signatures each of them may make.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ca_core::{PublicKey, PublicKeyError, PublicKeyKind};
use der::asn1::{BitStringRef, UintRef};
use der::{AnyRef, Encode as _, Tag};
use jsonwebtoken::crypto::aws_lc;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use pki_types::{AlgorithmIdentifier, alg_id};

/// The keys of one issuer: at least one, each of a kind and size that mesh-ca accepts.
///
/// Which algorithms a key may verify follows from the key and never from the token: so there is no
/// `none`, and no shared secret that somebody makes out of a public key.
///
/// ```
/// use ca_auth::IssuerKeys;
///
/// let file = br#"{"keys": [{
///     "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "2026-11",
///     "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
///     "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
/// }]}"#;
/// assert_eq!(IssuerKeys::parse(file)?.len(), 1);
/// assert!(IssuerKeys::parse(b"{}").is_err());
/// # Ok::<(), ca_auth::IssuerKeysError>(())
/// ```
///
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct IssuerKeys {
    keys: Arc<[IssuerKey]>,
    issuer: Option<Arc<str>>,
}

impl IssuerKeys {
    /// Reads the content of a file: a JWK Set (RFC 7517), or PEM with one or more `PUBLIC KEY` blocks.
    ///
    /// In a JWK Set, keys of kinds that are not accepted are passed over, as the RFC wants: issuers
    /// publish keys for purposes that are not ours. A PEM file was made for us, and so every key counts.
    ///
    /// # Errors
    /// When the text is neither, or no key in it can be used.
    pub fn parse(content: &[u8]) -> Result<Self, IssuerKeysError> {
        let first = content.iter().find(|byte| !byte.is_ascii_whitespace());
        match first {
            None => Err(IssuerKeysError::Empty),
            Some(b'{') => Self::from_jwk_set(content),
            Some(_) => Self::from_pem(content),
        }
    }

    fn new(keys: Arc<[IssuerKey]>) -> Self {
        Self { keys, issuer: None }
    }

    /// The same keys, for tokens of this issuer alone: who published them has said so.
    #[must_use]
    pub fn published_by(mut self, issuer: impl Into<Arc<str>>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Whose tokens they are for, if who published them has said so.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// The keys of an issuer that is part of this process.
    pub(crate) fn of_one(id: String, key: PublicKey) -> Self {
        Self::new([IssuerKey::new(Some(id), key, None)].into())
    }

    fn from_jwk_set(content: &[u8]) -> Result<Self, IssuerKeysError> {
        let set: JwkSet =
            serde_json::from_slice(content).map_err(|error| IssuerKeysError::NotAJwkSet {
                line: error.line(),
                column: error.column(),
            })?;
        let mut keys = Vec::new();
        let mut passed_over = Vec::new();
        for (index, jwk) in set.keys.iter().enumerate() {
            match IssuerKey::from_jwk(jwk) {
                Ok(key) => keys.push(key),
                Err(reason) => passed_over.push(format!("key {index}: {reason}")),
            }
        }
        if keys.is_empty() {
            let reasons = passed_over.join("; ");
            return Err(IssuerKeysError::NoneUsable { reasons });
        }
        Ok(Self::new(keys.into()))
    }

    fn from_pem(content: &[u8]) -> Result<Self, IssuerKeysError> {
        let blocks = pem::parse_many(content).map_err(|_| IssuerKeysError::NotPem)?;
        if blocks.is_empty() {
            return Err(IssuerKeysError::NotPem);
        }
        let read = |block: &pem::Pem| match block.tag() {
            // Without an ID: such a key is tried for every token.
            "PUBLIC KEY" => Ok(IssuerKey::new(
                None,
                PublicKey::from_spki_der(block.contents())?,
                None,
            )),
            label => Err(IssuerKeysError::Label {
                label: label.into(),
            }),
        };
        blocks
            .iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Self::new)
    }

    /// Whether these are the very keys that were read at one moment, and not others that may be equal.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.keys, &other.keys)
    }

    /// How many keys there are.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The fingerprint of each key, to be shown: the SHA-256 of its public key in base64url, which is
    /// the key ID that Kubernetes gives it.
    pub fn fingerprints(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|key| fingerprint(&key.public))
    }

    /// The keys that may have signed a token which names `id`: those of that ID and those without one.
    /// A token without an ID may be signed by any.
    pub(crate) fn candidates(&self, id: Option<&str>) -> impl Iterator<Item = &IssuerKey> {
        self.keys.iter().filter(move |key| match (id, &key.id) {
            (Some(wanted), Some(own)) => wanted == own,
            _ => true,
        })
    }
}

/// One public key with the name its issuer gave it.
#[derive(Clone)]
pub(crate) struct IssuerKey {
    id: Option<String>,
    public: PublicKey,
    algorithms: Vec<Algorithm>,
    /// The same key in the form the verifying library takes.
    decoding: DecodingKey,
}

impl IssuerKey {
    /// `only` narrows the algorithms, when the issuer says which one it uses.
    fn new(id: Option<String>, public: PublicKey, only: Option<Algorithm>) -> Self {
        let spki = public.spki_der();
        let (algorithms, decoding): (&[Algorithm], _) = match public.kind() {
            PublicKeyKind::EcdsaP256 => (&[Algorithm::ES256], DecodingKey::from_ec_der(spki)),
            PublicKeyKind::EcdsaP384 => (&[Algorithm::ES384], DecodingKey::from_ec_der(spki)),
            PublicKeyKind::Ed25519 => (&[Algorithm::EdDSA], DecodingKey::from_ed_der(spki)),
            PublicKeyKind::Rsa { .. } => (&RSA_ALGORITHMS, DecodingKey::from_rsa_der(spki)),
            // Kinds that may come: until somebody says how they sign tokens, they sign none.
            _ => (&[], DecodingKey::from_ec_der(spki)),
        };
        let algorithms = algorithms
            .iter()
            .copied()
            .filter(|algorithm| only.is_none_or(|only| only == *algorithm))
            .collect();
        Self {
            id,
            public,
            algorithms,
            decoding,
        }
    }

    fn from_jwk(jwk: &Jwk) -> Result<Self, JwkError> {
        if let Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)) = jwk.common.public_key_use {
            return Err(JwkError::Use);
        }
        let only = match jwk.common.key_algorithm {
            Some(name) => Some(Algorithm::try_from(name).map_err(|_| JwkError::Algorithm)?),
            None => None,
        };
        let key = Self::new(jwk.common.key_id.clone(), public_key(jwk)?, only);
        if key.algorithms.is_empty() {
            return Err(JwkError::Algorithm);
        }
        Ok(key)
    }

    /// Whether signatures by this algorithm can be this key's.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether this key made `signature` over `message`. Never true for an algorithm that does not fit.
    pub(crate) fn verifies(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> bool {
        // The provider is named here and not looked up: the process-wide one panics when another crate
        // of the same process has turned on a second one.
        self.fits(algorithm)
            && (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&algorithm, &self.decoding)
                .is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
    }
}

impl fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerKey")
            .field("id", &self.id)
            .field("public", &self.public)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// The key ID that Kubernetes gives a key: base64url of the SHA-256 of its `SubjectPublicKeyInfo`.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.spki_der());
    URL_SAFE_NO_PAD.encode(digest)
}

/// Why there are no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerKeysError {
    /// Nothing but white space.
    #[error("no issuer keys: the text is empty")]
    Empty,
    /// It starts as JSON does, but is not a JWK Set.
    #[error("not a JWK Set: wrong at line {line}, column {column}")]
    NotAJwkSet {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Neither JSON nor PEM.
    #[error("neither a JWK Set nor PEM")]
    NotPem,
    /// A PEM block of something else: a private key has no business here.
    #[error("PEM block {label:?} among issuer keys (accepted: PUBLIC KEY)")]
    Label {
        /// The label of the block.
        label: String,
    },
    /// A public key that is not accepted.
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    /// A JWK Set in which every key was passed over.
    #[error("no key in the JWK Set can be used: {}", if reasons.is_empty() { "it is empty" } else { reasons })]
    NoneUsable {
        /// Why, key by key.
        reasons: String,
    },
}

/// Why a key of a JWK Set is passed over.
#[derive(Debug, thiserror::Error)]
enum JwkError {
    #[error("not for signatures")]
    Use,
    #[error("its algorithm is not one for signatures by such a key")]
    Algorithm,
    #[error("its kind is not accepted")]
    Kind,
    #[error("its numbers cannot be read")]
    Encoding,
    #[error(transparent)]
    Key(#[from] PublicKeyError),
}

/// The same key as a `SubjectPublicKeyInfo`, so that one place judges kinds and sizes.
fn public_key(jwk: &Jwk) -> Result<PublicKey, JwkError> {
    let decode = |text: &String| URL_SAFE_NO_PAD.decode(text).map_err(|_| JwkError::Encoding);
    let (algorithm, bits) = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) => {
            let (algorithm, size) = match key.curve {
                EllipticCurve::P256 => (alg_id::ECDSA_P256, 32),
                EllipticCurve::P384 => (alg_id::ECDSA_P384, 48),
                _ => return Err(JwkError::Kind),
            };
            let (x, y) = (decode(&key.x)?, decode(&key.y)?);
            // RFC 7518, 6.2.1.2: always of full length. Checked one by one, because a byte too many in
            // one and a byte too few in the other add up to a point that nobody meant.
            if x.len() != size || y.len() != size {
                return Err(JwkError::Encoding);
            }
            (algorithm, [&[UNCOMPRESSED][..], &x, &y].concat())
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (alg_id::ED25519, decode(&key.x)?)
        }
        AlgorithmParameters::RSA(key) => {
            let (n, e) = (decode(&key.n)?, decode(&key.e)?);
            let numbers = rsa_public_key(&n, &e).map_err(|_| JwkError::Encoding)?;
            (alg_id::RSA_ENCRYPTION, numbers)
        }
        _ => return Err(JwkError::Kind),
    };
    let spki = subject_public_key_info(algorithm, &bits).map_err(|_| JwkError::Encoding)?;
    Ok(PublicKey::from_spki_der(&spki)?)
}

fn subject_public_key_info(algorithm: AlgorithmIdentifier, key: &[u8]) -> der::Result<Vec<u8>> {
    let algorithm = AnyRef::new(Tag::Sequence, algorithm.as_ref())?.to_der()?;
    let key = BitStringRef::from_bytes(key)?.to_der()?;
    AnyRef::new(Tag::Sequence, &[algorithm, key].concat())?.to_der()
}

fn rsa_public_key(n: &[u8], e: &[u8]) -> der::Result<Vec<u8>> {
    let numbers = [UintRef::new(n)?.to_der()?, UintRef::new(e)?.to_der()?].concat();
    AnyRef::new(Tag::Sequence, &numbers)?.to_der()
}

/// First byte of a curve point with both coordinates.
const UNCOMPRESSED: u8 = 4;

const RSA_ALGORITHMS: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

#[cfg(test)]
mod tests;
