//! A token issuer of our own, for machines and meshes that have no other.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ca_core::{KeyError, KeyKind, PrivateKey, PublicKeyKind, SigningKey as _};
use jsonwebtoken::crypto::aws_lc;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde::Serialize;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::caller::ServiceAccount;
use crate::issuer_keys::{IssuerKeys, fingerprint};

/// Signs tokens for service accounts with a P-256 key, and knows the matching public key.
///
/// Whoever has the key can call itself anything in the mesh. **Keep it where the CA's own key is.**
///
/// ```
/// use std::time::Duration;
/// use ca_auth::{LocalIssuer, ServiceAccount};
/// use time::OffsetDateTime;
///
/// let issuer = LocalIssuer::generate()?;
/// let cart = ServiceAccount::new("shop", "cart")?;
/// let now = OffsetDateTime::UNIX_EPOCH;
/// let token = issuer.issue(&cart, "istio-ca", Duration::from_secs(3600), now)?;
/// assert_eq!(token.split('.').count(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LocalIssuer {
    key: PrivateKey,
    /// The same key in the form the signing library takes. It wipes itself.
    encoding: EncodingKey,
    id: String,
}

impl LocalIssuer {
    /// The `iss` of its tokens.
    pub const NAME: &'static str = "mesh-ca-local";

    /// An issuer with a new key.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn generate() -> Result<Self, LocalIssuerError> {
        Self::new(PrivateKey::generate(KeyKind::EcdsaP256)?)
    }

    /// An issuer with the key that an earlier one had.
    ///
    /// # Errors
    /// When there is no P-256 private key in the text.
    pub fn from_pem(pem: &[u8]) -> Result<Self, LocalIssuerError> {
        Self::new(PrivateKey::from_pem(pem)?)
    }

    fn new(key: PrivateKey) -> Result<Self, LocalIssuerError> {
        let kind = key.public_key().kind();
        if kind != PublicKeyKind::EcdsaP256 {
            return Err(LocalIssuerError::Kind { kind });
        }
        let encoding = EncodingKey::from_ec_der(key.pkcs8_der());
        let id = fingerprint(key.public_key());
        Ok(Self { key, encoding, id })
    }

    /// The key, to be kept. **Write it to a file of mode 0600 only.**
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        self.key.to_pkcs8_pem()
    }

    /// The keys that verify its tokens.
    pub fn keys(&self) -> IssuerKeys {
        IssuerKeys::of_one(self.id.clone(), self.key.public_key().clone())
    }

    /// A token that says: the bearer is `account`, from `now` on for `lifetime`, towards `audience`.
    ///
    /// # Errors
    /// When the token would be over at once, or the key cannot sign.
    pub fn issue(
        &self,
        account: &ServiceAccount,
        audience: &str,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<String, LocalIssuerError> {
        let issued = now.unix_timestamp();
        // Claims have whole seconds. Rounded up, so that a short life is not cut to nothing.
        let seconds = lifetime.as_secs_f64().ceil() as i64;
        if seconds < 1 {
            return Err(LocalIssuerError::NoLifetime);
        }
        let header = Header {
            alg: "ES256",
            typ: "JWT",
            kid: &self.id,
        };
        let claims = Claims {
            iss: Self::NAME,
            sub: account.user_name(),
            aud: [audience],
            iat: issued,
            exp: issued.saturating_add(seconds),
        };
        let message = format!("{}.{}", encode(&header)?, encode(&claims)?);
        let sign = || {
            let signer =
                (aws_lc::DEFAULT_PROVIDER.signer_factory)(&Algorithm::ES256, &self.encoding)
                    .ok()?;
            signer.try_sign(message.as_bytes()).ok()
        };
        let signature = sign().ok_or(LocalIssuerError::Key(KeyError::Sign))?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Why there is no issuer, or no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalIssuerError {
    /// The key cannot be made, read or used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key of another kind: somebody put another file in its place.
    #[error("the token issuer needs an ECDSA P-256 key, not {kind}")]
    Kind {
        /// What it is.
        kind: PublicKeyKind,
    },
    /// A token that nobody could use.
    #[error("the token would have no lifetime")]
    NoLifetime,
    /// The claims cannot be written.
    #[error("the token cannot be encoded")]
    Encode,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    kid: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'static str,
    sub: String,
    aud: [&'a str; 1],
    iat: i64,
    exp: i64,
}

fn encode(part: &impl Serialize) -> Result<String, LocalIssuerError> {
    let json = serde_json::to_vec(part).map_err(|_| LocalIssuerError::Encode)?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(lifetime: Duration) -> Result<String, LocalIssuerError> {
        let cart = ServiceAccount::new("shop", "cart").unwrap();
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        LocalIssuer::generate()?.issue(&cart, "istio-ca", lifetime, now)
    }

    fn claims(token: &str) -> serde_json::Value {
        let part = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn a_token_says_who_for_whom_and_how_long() {
        let expected = serde_json::json!({
            "iss": "mesh-ca-local",
            "sub": "system:serviceaccount:shop:cart",
            "aud": ["istio-ca"],
            "iat": 1_800_000_000,
            "exp": 1_800_003_600,
        });
        assert_eq!(claims(&issue(Duration::from_secs(3600)).unwrap()), expected);
    }

    #[test]
    fn lifetimes_are_rounded_up_and_never_overflow() {
        for (lifetime, exp) in [
            (Duration::from_millis(1), 1_800_000_001),
            (Duration::from_millis(1500), 1_800_000_002),
            (Duration::MAX, i64::MAX),
        ] {
            assert_eq!(claims(&issue(lifetime).unwrap())["exp"], exp);
        }
        assert_eq!(issue(Duration::ZERO), Err(LocalIssuerError::NoLifetime));
    }

    #[test]
    fn the_key_survives_being_stored() {
        let issuer = LocalIssuer::generate().unwrap();
        let again = LocalIssuer::from_pem(issuer.to_pkcs8_pem().as_bytes()).unwrap();
        assert_eq!(again.id, issuer.id);

        let other = PrivateKey::generate(KeyKind::EcdsaP384).unwrap();
        let error = LocalIssuer::from_pem(other.to_pkcs8_pem().as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token issuer needs an ECDSA P-256 key, not ECDSA P-384"
        );
        assert!(LocalIssuer::from_pem(b"").is_err());
    }

    #[test]
    fn the_key_is_not_printed() {
        let issuer = LocalIssuer::generate().unwrap();
        let secret = issuer.key.pkcs8_der()[40..60].to_vec();
        let printed = format!("{issuer:?}");
        assert!(
            !printed.contains(&format!("{secret:?}")[1..20]),
            "{printed}"
        );
        assert!(printed.contains("redacted"), "{printed}");
    }
}
