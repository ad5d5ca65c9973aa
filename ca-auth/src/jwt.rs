//! Callers that show a signed token of a known issuer, such as a Kubernetes service account token.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ca_core::{BoxFuture, IdentityError, SpiffeId, TrustDomain};
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::authenticator::{AnotherIssuer, Authenticator, AuthenticatorStatus, AuthnError};
use crate::caller::{Caller, Identities, Pod, ServiceAccount, Source, SubjectError};
use crate::evidence::Evidence;
use crate::issuer_keys::IssuerKeys;
use crate::key_source::{KeySource, KeysUnavailable};
use crate::subject_rule::{ClaimError, SubjectRule};

/// Accepts JSON Web Tokens (RFC 7519) in the compact form, signed by one issuer.
///
/// - `iss` must be the issuer, if one was set. It is looked at first, so that a token of one issuer never
///   makes us ask another one for its keys.
/// - `aud` must hold one of our audiences, as text or in a list.
/// - `exp` must be there and in the future, to the second: Istio gives no grace either. See
///   [`with_clock_skew`](Self::with_clock_skew).
/// - `nbf` may be at most [`NOT_BEFORE_LEEWAY`](Self::NOT_BEFORE_LEEWAY) in the future.
/// - `sub` must be exactly `system:serviceaccount:<namespace>:<service account>`. Where the claims of
///   Kubernetes are there as well, they must agree with it. For issuers that are not Kubernetes, see
///   [`with_subject_rule`](Self::with_subject_rule).
///
/// A token whose key is not known makes us look for newer keys once, and then is judged again.
#[derive(Clone, Debug)]
pub struct JwtAuthenticator {
    trust_domain: TrustDomain,
    keys: Arc<dyn KeySource>,
    audiences: Audiences,
    issuer: Option<String>,
    clock_skew: Duration,
    subject: SubjectRule,
}

impl JwtAuthenticator {
    /// How far the clock of an issuer may be ahead of ours. Only for the start of a token's life: a
    /// token that is over is over.
    pub const NOT_BEFORE_LEEWAY: Duration = Duration::minutes(1);

    /// No clock is allowed to be further off than this: it is how long a stolen token that is over would
    /// still be good.
    pub const MAX_CLOCK_SKEW: Duration = Duration::minutes(5);

    /// Longer tokens are refused unread. Those of Kubernetes have about 1 KiB.
    pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

    /// Accepts tokens that one of `keys` signed for one of `audiences`, and names their service
    /// accounts in `trust_domain`.
    pub fn new(
        trust_domain: TrustDomain,
        keys: impl KeySource + 'static,
        audiences: Audiences,
    ) -> Self {
        Self {
            trust_domain,
            keys: Arc::new(keys),
            audiences,
            issuer: None,
            clock_skew: Duration::ZERO,
            subject: SubjectRule::default(),
        }
    }

    /// Accepts only tokens whose `iss` is exactly `issuer`.
    #[must_use]
    pub fn with_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Allows for a clock of the issuer that differs from ours, in both directions: `exp` and `nbf` are
    /// judged this much in favour of the token. At most [`MAX_CLOCK_SKEW`](Self::MAX_CLOCK_SKEW).
    #[must_use]
    pub fn with_clock_skew(mut self, skew: std::time::Duration) -> Self {
        let skew = Duration::try_from(skew).unwrap_or(Self::MAX_CLOCK_SKEW);
        self.clock_skew = skew.min(Self::MAX_CLOCK_SKEW);
        self
    }

    /// Changes how tokens name their bearers.
    #[must_use]
    pub fn with_subject_rule(mut self, rule: SubjectRule) -> Self {
        self.subject = rule;
        self
    }

    /// Judges a token, and tells what it is bound to besides.
    #[cfg(any(test, feature = "kubernetes"))]
    pub(crate) async fn verified(
        &self,
        token: &str,
        now: OffsetDateTime,
    ) -> Result<VerifiedToken, TokenError> {
        self.verify(SignedToken::read(token)?, now).await
    }

    async fn verify(
        &self,
        token: SignedToken<'_>,
        now: OffsetDateTime,
    ) -> Result<VerifiedToken, TokenError> {
        if let Some(issuer) = &self.issuer {
            token.claims.check_issuer(issuer)?;
        }
        let keys = self.keys.current().await?;
        if let Some(issuer) = keys.issuer() {
            token.claims.check_issuer(issuer)?;
        }
        let keys = match token.verify(&keys) {
            Ok(()) => keys,
            Err(error) if token.may_be_by_newer_keys(&error) => {
                let newer = self.keys.newer(&keys).await?.ok_or(error)?;
                token.verify(&newer)?;
                newer
            }
            Err(error) => return Err(error),
        };
        self.accept(token.claims, &token.claims_json, &keys, now)
    }

    /// What is wrong with a token that has been read, with whose token it is.
    fn reason(&self, error: TokenError) -> AuthnError {
        let could_ask = !matches!(error, TokenError::Keys(_));
        let reason = match (error, &self.issuer) {
            (TokenError::Issuer(another), _) => return AuthnError::AnotherIssuer(another),
            (error, Some(issuer)) => format!("issuer {issuer:?}: {error}").into(),
            (error, None) => error.into(),
        };
        if could_ask {
            AuthnError::Rejected(reason)
        } else {
            AuthnError::CouldNotAsk(reason)
        }
    }

    /// Judges claims that the issuer has made.
    fn accept(
        &self,
        claims: Claims,
        json: &[u8],
        keys: &IssuerKeys,
        now: OffsetDateTime,
    ) -> Result<VerifiedToken, TokenError> {
        let expires = claims.check_times(self.clock_skew, now)?;
        claims.check_audience(&self.audiences)?;
        let source = Source::Token {
            // As it was configured, which is what it says: whole, because policies go by it.
            issuer: self
                .issuer
                .clone()
                .or_else(|| keys.issuer().map(str::to_owned))
                .or(claims.iss.map(excerpt)),
        };
        let caller =
            |identity: SpiffeId| Caller::new(NAME, source, Identities::from(identity), expires);
        match &self.subject {
            SubjectRule::ServiceAccount => {
                let account = ServiceAccount::from_user_name(&claims.sub)?;
                let identity = account
                    .identity(&self.trust_domain)
                    .map_err(TokenError::Identity)?;
                let mut caller = caller(identity);
                let mut bound = Bound::default();
                if let Some(kubernetes) = claims.kubernetes {
                    (caller.pod, bound) = kubernetes.bound_to(&account)?;
                }
                caller.service_account = Some(account);
                Ok(VerifiedToken { caller, bound })
            }
            SubjectRule::Claims(rule) => Ok(VerifiedToken {
                caller: caller(rule.identity(json, &self.trust_domain)?),
                bound: Bound::default(),
            }),
        }
    }
}

/// What a token proves.
#[derive(Clone, Debug)]
pub(crate) struct VerifiedToken {
    pub(crate) caller: Caller,
    #[cfg_attr(not(feature = "kubernetes"), expect(dead_code, reason = "nobody asks"))]
    pub(crate) bound: Bound,
}

/// With what a token of Kubernetes ends, besides its time. Its pod is part of the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) account_uid: Option<String>,
    /// Where the pod was when it got the token; without a pod, what the token is bound to.
    pub(crate) node: Option<String>,
    /// Whether it ends with a Secret.
    pub(crate) to_secret: bool,
}

/// What a token says of itself where **somebody else verifies it**: enough to spare them those that cannot be good.
#[cfg(feature = "kubernetes")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimedToken {
    pub(crate) issuer: Option<String>,
    pub(crate) expires: OffsetDateTime,
}

#[cfg(feature = "kubernetes")]
impl ClaimedToken {
    pub(crate) fn read(
        token: &str,
        audiences: &Audiences,
        clock_skew: Duration,
        now: OffsetDateTime,
    ) -> Result<Self, TokenError> {
        let claims = SignedToken::read(token)?.claims;
        let expires = claims.check_times(clock_skew, now)?;
        claims.check_audience(audiences)?;
        Ok(Self {
            issuer: claims.iss,
            expires,
        })
    }
}

/// A token that has been read and not been verified: **its claims are what anybody may have written**.
struct SignedToken<'a> {
    /// What the signature is over.
    message: &'a [u8],
    signature: Vec<u8>,
    header: Header,
    algorithm: Algorithm,
    claims: Claims,
    /// The same claims as they came, for rules that need other ones.
    claims_json: Vec<u8>,
}

impl<'a> SignedToken<'a> {
    fn read(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > JwtAuthenticator::MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Form);
        };
        let message = &token.as_bytes()[..header.len() + 1 + claims.len()];
        let signature = decode(signature).ok_or(TokenError::Form)?;

        let header: Header = parse("header", &decode(header).ok_or(TokenError::Form)?)?;
        if header.crit.is_some() {
            // RFC 7515, 4.1.11: who does not know an extension that is critical must refuse.
            return Err(TokenError::CriticalExtension);
        }
        let algorithm = header.alg.parse().map_err(|_| header.refused_algorithm())?;
        let claims_json = decode(claims).ok_or(TokenError::Form)?;
        Ok(Self {
            message,
            signature,
            algorithm,
            claims: parse("claims", &claims_json)?,
            claims_json,
            header,
        })
    }

    fn verify(&self, keys: &IssuerKeys) -> Result<(), TokenError> {
        let candidates: Vec<_> = keys.candidates(self.header.kid.as_deref()).collect();
        if candidates.is_empty() {
            return Err(TokenError::UnknownKey {
                id: self.header.kid.as_ref().map(excerpt).unwrap_or_default(),
            });
        }
        if !candidates.iter().any(|key| key.fits(self.algorithm)) {
            return Err(self.header.refused_algorithm());
        }
        if !candidates
            .iter()
            .any(|key| key.verifies(self.algorithm, self.message, &self.signature))
        {
            return Err(TokenError::Signature);
        }
        Ok(())
    }

    /// Whether the issuer may have made the token with a key that we have not seen yet. Without an ID
    /// in its header, that is all that a signature which does not verify tells.
    fn may_be_by_newer_keys(&self, error: &TokenError) -> bool {
        match error {
            TokenError::UnknownKey { .. } => true,
            TokenError::Signature | TokenError::Algorithm { .. } => self.header.kid.is_none(),
            _ => false,
        }
    }
}

impl Authenticator for JwtAuthenticator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn authenticate<'a>(
        &'a self,
        evidence: &'a Evidence,
        now: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Caller, AuthnError>> {
        Box::pin(async move {
            let token = evidence.bearer_token().ok_or(AuthnError::NotPresented)?;
            // One that does not read is nobody's.
            let token = SignedToken::read(token.secret())
                .map_err(|error| AuthnError::Rejected(error.into()))?;
            let verified = self.verify(token, now).await;
            let verified = verified.map_err(|error| self.reason(error))?;
            Ok(verified.caller)
        })
    }

    fn status(&self) -> AuthenticatorStatus {
        AuthenticatorStatus {
            name: NAME,
            issuer: self.issuer.clone(),
            keys: Some(self.keys.status()),
        }
    }
}

/// Whom tokens must be meant for: at least one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audiences(Vec<String>);

impl Audiences {
    /// These names, or `None` if there is none or an empty one among them.
    pub fn new(names: Vec<String>) -> Option<Self> {
        let good = !names.is_empty() && names.iter().all(|name| !name.is_empty());
        good.then_some(Self(names))
    }
}

#[cfg(feature = "kubernetes")]
impl Audiences {
    pub(crate) fn names(&self) -> &[String] {
        &self.0
    }
}

impl Default for Audiences {
    /// What the agents of Istio ask their tokens for.
    fn default() -> Self {
        Self(vec!["istio-ca".into()])
    }
}

/// Why a token is rejected. For the log: none of these holds the token or its signature, and what they
/// quote of it is short.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than [`JwtAuthenticator::MAX_TOKEN_BYTES`].
    #[error("the token is longer than {} bytes", JwtAuthenticator::MAX_TOKEN_BYTES)]
    TooLong,
    /// Not three parts in base64url.
    #[error("not a signed JSON Web Token")]
    Form,
    /// A part lacks a required member.
    #[error("the {part} of the token: there is no {member:?}")]
    Missing {
        /// Which part.
        part: &'static str,
        /// What it lacks: a name of ours, nothing of the token.
        member: String,
    },
    /// A part is not the JSON it should be.
    #[error("the {part} of the token cannot be read (column {column})")]
    Json {
        /// Which part.
        part: &'static str,
        /// Where in the part reading stopped.
        column: usize,
    },
    /// The header names an extension that must be understood, and none is.
    #[error("the token has critical extensions")]
    CriticalExtension,
    /// No key of the issuer makes signatures of this kind.
    #[error("algorithm {found:?} does not fit the keys of the issuer")]
    Algorithm {
        /// What the header says.
        found: String,
    },
    /// The issuer has no key of this ID.
    #[error("the issuer has no key {id:?}")]
    UnknownKey {
        /// What the header says.
        id: String,
    },
    /// The keys of the issuer cannot be had. The only reason for which the same token may be good later.
    #[error(transparent)]
    Keys(#[from] KeysUnavailable),
    /// No key of the issuer made the signature.
    #[error("the signature does not verify")]
    Signature,
    /// Its time is over.
    #[error("expired at {}", shown(*at))]
    Expired {
        /// When.
        at: OffsetDateTime,
    },
    /// Its time has not come.
    #[error("not valid before {}", shown(*from))]
    NotYetValid {
        /// From when on it is.
        from: OffsetDateTime,
    },
    /// Another issuer than the one expected.
    #[error(transparent)]
    Issuer(#[from] AnotherIssuer),
    /// Meant for somebody else.
    #[error("meant for {found}, not for us")]
    Audience {
        /// What the token says.
        found: String,
    },
    /// The claims do not name anybody.
    #[error(transparent)]
    Claims(#[from] ClaimError),
    /// The subject is not a service account.
    #[error("subject: {0}")]
    Subject(#[from] SubjectError),
    /// The subject and the claims of Kubernetes speak of different accounts.
    #[error("the subject and the kubernetes.io claims speak of different service accounts")]
    Contradiction,
    /// The account has no SPIFFE ID in this trust domain.
    #[error("subject: {0}")]
    Identity(#[source] IdentityError),
}

#[cfg(feature = "kubernetes")]
impl TokenError {
    /// Whether only who made the token can tell: the keys that we know say nothing about it.
    pub(crate) fn is_for_the_issuer_to_judge(&self) -> bool {
        matches!(
            self,
            Self::Keys(_) | Self::UnknownKey { .. } | Self::Issuer(_)
        )
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

impl Header {
    fn refused_algorithm(&self) -> TokenError {
        TokenError::Algorithm {
            found: excerpt(&self.alg),
        }
    }
}

/// Members that are given twice are an error: two readers could choose differently.
#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: String,
    #[serde(default)]
    aud: Aud,
    /// Seconds since 1970, whole or not (RFC 7519, section 2).
    exp: f64,
    nbf: Option<f64>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<KubernetesClaims>,
}

impl Claims {
    fn check_issuer(&self, expected: &str) -> Result<(), AnotherIssuer> {
        if self.iss.as_deref() == Some(expected) {
            return Ok(());
        }
        Err(AnotherIssuer {
            found: self.iss.as_ref().map(excerpt),
            expected: expected.into(),
        })
    }

    /// When the token ends.
    fn check_times(
        &self,
        clock_skew: Duration,
        now: OffsetDateTime,
    ) -> Result<OffsetDateTime, TokenError> {
        let exp = instant(self.exp);
        let expires = exp.saturating_add(clock_skew);
        if expires <= now {
            return Err(TokenError::Expired { at: exp });
        }
        let leeway = JwtAuthenticator::NOT_BEFORE_LEEWAY.max(clock_skew);
        match self.nbf.map(instant) {
            Some(from) if from - now > leeway => Err(TokenError::NotYetValid { from }),
            _ => Ok(expires),
        }
    }

    fn check_audience(&self, ours: &Audiences) -> Result<(), TokenError> {
        if self.aud.has_one_of(ours) {
            return Ok(());
        }
        Err(TokenError::Audience {
            found: self.aud.shown(),
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Aud {
    One(String),
    Many(Vec<String>),
}

impl Aud {
    fn has_one_of(&self, ours: &Audiences) -> bool {
        self.names().iter().any(|name| ours.0.contains(name))
    }

    fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }

    fn shown(&self) -> String {
        match self.names() {
            [] => "nobody".into(),
            [first] => format!("{:?}", excerpt(first)),
            [first, others @ ..] => format!("{:?} and {} more", excerpt(first), others.len()),
        }
    }
}

impl Default for Aud {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

#[derive(Deserialize)]
struct KubernetesClaims {
    namespace: Option<String>,
    serviceaccount: Option<KubernetesObject>,
    pod: Option<KubernetesObject>,
    node: Option<KubernetesObject>,
    secret: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct KubernetesObject {
    name: String,
    #[serde(default)]
    uid: String,
}

impl KubernetesClaims {
    fn bound_to(self, account: &ServiceAccount) -> Result<(Option<Pod>, Bound), TokenError> {
        let says_other =
            |found: Option<&str>, expected| found.is_some_and(|found| found != expected);
        let name = self
            .serviceaccount
            .as_ref()
            .map(|found| found.name.as_str());
        if says_other(self.namespace.as_deref(), account.namespace())
            || says_other(name, account.name())
        {
            return Err(TokenError::Contradiction);
        }
        let bound = Bound {
            account_uid: self.serviceaccount.map(|account| account.uid),
            node: self.node.map(|node| node.name),
            to_secret: self.secret.is_some(),
        };
        let pod = self.pod.map(|pod| Pod {
            name: pod.name,
            uid: pod.uid,
        });
        Ok((pod, bound))
    }
}

fn parse<T: DeserializeOwned>(part: &'static str, json: &[u8]) -> Result<T, TokenError> {
    serde_json::from_slice(json).map_err(|error| {
        // The library's own message would quote what it found, but for a member that is not there.
        let message = error.to_string();
        let missing = message.strip_prefix("missing field `");
        match missing.and_then(|rest| rest.split_once('`')) {
            Some((member, _)) => TokenError::Missing {
                part,
                member: member.into(),
            },
            None => TokenError::Json {
                part,
                column: error.column(),
            },
        }
    })
}

fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

/// Times beyond what we can name become the last we can name: they are as far away.
fn instant(seconds: f64) -> OffsetDateTime {
    let (first, last) = (time::Date::MIN.midnight(), time::Date::MAX.midnight());
    let (first, last) = (first.assume_utc(), last.assume_utc());
    let bounded = seconds.clamp(first.unix_timestamp() as f64, last.unix_timestamp() as f64);
    // Conversion from a float saturates and so cannot fail.
    OffsetDateTime::UNIX_EPOCH
        .checked_add(Duration::seconds(bounded.floor() as i64))
        .unwrap_or(last)
}

fn shown(time: OffsetDateTime) -> String {
    // A year beyond 9999 does not format: it is what `instant` makes of times that nobody means.
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

/// Logs must not be filled by whoever sends tokens.
fn excerpt(text: impl AsRef<str>) -> String {
    text.as_ref().chars().take(64).collect()
}

const NAME: &str = "jwt";

#[cfg(test)]
mod tests;
