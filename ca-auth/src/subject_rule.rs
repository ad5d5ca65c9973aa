//! From the claims of a token to the SPIFFE ID of its bearer.

use std::fmt;
use std::str::FromStr;

use ca_core::{IdentityError, SpiffeId, TrustDomain};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// How the tokens of an issuer name their bearers.
#[derive(Clone, Debug, Default)]
pub enum SubjectRule {
    /// As Kubernetes does: `sub` is exactly `system:serviceaccount:<namespace>:<service account>`.
    #[default]
    ServiceAccount,
    /// By claims of any name.
    Claims(ClaimRule),
}

/// A template for the ID, and claims that a token must have for it to apply.
///
/// **Many issuers serve more than one organisation**: without a claim that tells yours apart, all their
/// users are in your mesh.
///
/// ```
/// use ca_auth::{ClaimRule, IdentityTemplate};
///
/// // Who can choose both could choose where one ends and the other begins.
/// let two = "spiffe://{trust_domain}/ns/ci/sa/{claim:environment}-{claim:actor}";
/// assert!(two.parse::<IdentityTemplate>().is_err());
///
/// let template = "spiffe://{trust_domain}/ns/ci/sa/{claim:environment}".parse()?;
/// let rule = ClaimRule::new(template).requiring("repository_owner".parse()?, "example");
/// # Ok::<(), ca_auth::TemplateError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClaimRule {
    template: IdentityTemplate,
    required: Vec<(ClaimName, String)>,
}

impl ClaimRule {
    /// Every token of the issuer names its bearer by `template`.
    pub fn new(template: IdentityTemplate) -> Self {
        Self {
            template,
            required: Vec::new(),
        }
    }

    /// Only for tokens in which `claim` is exactly `value`.
    #[must_use]
    pub fn requiring(mut self, claim: ClaimName, value: impl Into<String>) -> Self {
        self.required.push((claim, value.into()));
        self
    }

    /// Judges the claims of a token, which are a JSON object.
    pub(crate) fn identity(
        &self,
        claims: &[u8],
        trust_domain: &TrustDomain,
    ) -> Result<SpiffeId, ClaimError> {
        let claims: UniqueClaims =
            serde_json::from_slice(claims).map_err(|error| ClaimError::Json {
                column: error.column(),
            })?;
        let claims = Value::Object(claims.0);
        for (name, value) in &self.required {
            if name.text_in(&claims)? != value {
                return Err(ClaimError::OtherValue { name: name.clone() });
            }
        }
        self.template.identity(&claims, trust_domain)
    }
}

/// `spiffe://{trust_domain}/…` with `{claim:<name>}` in place of segments or parts of them: at most one
/// in each segment, so that two bearers never get the same ID by choosing where one claim ends.
///
/// What a token puts in such a place must be text of letters, digits, `.`, `-` and `_`. A value with a
/// slash in it is refused, and not spread over two segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityTemplate {
    text: Box<str>,
    /// What stands before each claim, and the claim.
    claims: Vec<(Box<str>, ClaimName)>,
    rest: Box<str>,
}

impl IdentityTemplate {
    fn identity(&self, claims: &Value, trust_domain: &TrustDomain) -> Result<SpiffeId, ClaimError> {
        let mut id = format!("spiffe://{trust_domain}");
        for (before, name) in &self.claims {
            let value = name.text_in(claims)?;
            let is_safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            if value.is_empty() || !value.bytes().all(is_safe) {
                return Err(ClaimError::Characters { name: name.clone() });
            }
            id.push_str(before);
            id.push_str(value);
        }
        id.push_str(&self.rest);
        id.parse().map_err(ClaimError::Identity)
    }
}

impl FromStr for IdentityTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let path = text.strip_prefix(START).ok_or(TemplateError::Start)?;
        if !path.starts_with('/') {
            return Err(TemplateError::Start);
        }
        let mut claims = Vec::new();
        let mut rest = path;
        while let Some((before, after)) = rest.split_once('{') {
            let (inner, after) = after.split_once('}').ok_or(TemplateError::Brace)?;
            let name = inner.strip_prefix("claim:");
            let name = name.ok_or_else(|| TemplateError::Placeholder {
                found: inner.into(),
            })?;
            if !claims.is_empty() && !before.contains('/') {
                return Err(TemplateError::TwoInASegment {
                    second: name.into(),
                });
            }
            claims.push((before.into(), name.parse()?));
            rest = after;
        }
        let template = Self {
            text: text.into(),
            claims,
            rest: rest.into(),
        };
        // With harmless values in place of the claims, what remains must be an ID.
        let literal = template.claims.iter().map(|(before, _)| &**before);
        let literal: Vec<_> = literal.chain([&*template.rest]).collect();
        format!("spiffe://any{}", literal.join("x")).parse::<SpiffeId>()?;
        Ok(template)
    }
}

impl fmt::Display for IdentityTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which claim: the name of a member of the claims; or, with a leading slash, the way to a member of a
/// member (a JSON Pointer, RFC 6901), such as `/kubernetes.io/namespace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimName(Box<str>);

impl ClaimName {
    fn text_in<'a>(&self, claims: &'a Value) -> Result<&'a str, ClaimError> {
        let found = if self.0.starts_with('/') {
            claims.pointer(&self.0)
        } else {
            claims.get(&*self.0)
        };
        match found {
            None => Err(ClaimError::Missing { name: self.clone() }),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(ClaimError::NotText { name: self.clone() }),
        }
    }
}

impl FromStr for ClaimName {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() || text == "/" {
            return Err(TemplateError::NoName);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ClaimName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// IDs of another trust domain are not ours to give.
    #[error("an identity template starts with {START}/")]
    Start,
    /// An opening brace alone.
    #[error("a {{ without its }}")]
    Brace,
    /// Something else than a claim.
    #[error("{{{found}}} is not {{claim:<name>}}")]
    Placeholder {
        /// What stands between the braces.
        found: String,
    },
    /// Two claims without a slash between them.
    #[error("claim {second:?} stands in the same segment as the one before it")]
    TwoInASegment {
        /// The second of them.
        second: String,
    },
    /// A claim without a name.
    #[error("a claim without a name")]
    NoName,
    /// What stands around the claims cannot be part of an ID.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Why claims do not name anybody. Never quotes what they say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Not an object, or with a member that is given twice.
    #[error("the claims cannot be read (column {column})")]
    Json {
        /// Where reading stopped.
        column: usize,
    },
    /// It is not there.
    #[error("there is no claim {name}")]
    Missing {
        /// Its name.
        name: ClaimName,
    },
    /// It is a number, a list or something else that is not text.
    #[error("claim {name} is not text")]
    NotText {
        /// Its name.
        name: ClaimName,
    },
    /// A required claim says something else.
    #[error("claim {name} is not what is required")]
    OtherValue {
        /// Its name.
        name: ClaimName,
    },
    /// It has characters that cannot stand in a segment of an ID.
    #[error("claim {name} cannot be part of a SPIFFE ID (A-Z a-z 0-9 . - _, not empty)")]
    Characters {
        /// Its name.
        name: ClaimName,
    },
    /// The whole is no ID.
    #[error(transparent)]
    Identity(IdentityError),
}

/// An object whose members are given once: two readers could choose differently.
struct UniqueClaims(Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = UniqueClaims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueClaims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() {
                        return Err(de::Error::custom("a member is given twice"));
                    }
                }
                Ok(UniqueClaims(claims))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

const START: &str = "spiffe://{trust_domain}";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn apply(template: &str, claims: &Value) -> Result<String, String> {
        let rule = ClaimRule::new(template.parse().map_err(|e: TemplateError| e.to_string())?);
        let mesh = "cluster.local".parse().unwrap();
        rule.identity(claims.to_string().as_bytes(), &mesh)
            .map(|id| id.to_string())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn claims_take_their_places_in_the_template() {
        let claims = json!({
            "team": "shop", "app": "cart",
            "kubernetes.io": { "namespace": "bank", "pod": { "name": "p-1" } },
            "https://example.com/role": "admin", "groups": ["a", "b"],
        });
        for (path, expected) in [
            ("/ns/{claim:team}/sa/{claim:app}", "/ns/shop/sa/cart"),
            ("/ns/ci/sa/ci-{claim:app}-bot", "/ns/ci/sa/ci-cart-bot"),
            ("/{claim:app}", "/cart"),
            ("/fixed", "/fixed"),
            ("/ns/{claim:/kubernetes.io/namespace}/sa/x", "/ns/bank/sa/x"),
            ("/p/{claim:/kubernetes.io/pod/name}", "/p/p-1"),
            ("/r/{claim:https://example.com/role}", "/r/admin"),
            ("/g/{claim:/groups/1}", "/g/b"),
        ] {
            let id = apply(&format!("spiffe://{{trust_domain}}{path}"), &claims);
            assert_eq!(id, Ok(format!("spiffe://cluster.local{expected}")));
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused_and_not_bent() {
        let judge = |value: Value| {
            apply(
                "spiffe://{trust_domain}/ns/{claim:team}/sa/x",
                &json!({ "team": value }),
            )
        };
        let characters =
            Err("claim team cannot be part of a SPIFFE ID (A-Z a-z 0-9 . - _, not empty)".into());
        for bad in [
            "",
            "a/b",
            "a/sa/b",
            "/",
            "a b",
            "a\0",
            "sh\u{f6}p",
            "%41",
            "{claim:x}",
            "a,b",
            "..\\",
        ] {
            assert_eq!(judge(json!(bad)), characters, "{bad:?}");
        }
        assert!(judge(json!("..")).is_err());
        assert!(judge(json!("x".repeat(3000))).is_err());
        for bad in [json!(7), json!(true), json!(null), json!(["a"]), json!({})] {
            assert_eq!(
                judge(bad.clone()),
                Err("claim team is not text".into()),
                "{bad}"
            );
        }
        let none = apply("spiffe://{trust_domain}/{claim:team}", &json!({}));
        assert_eq!(none, Err("there is no claim team".into()));
    }

    #[test]
    fn templates_that_could_confuse_two_bearers_do_not_exist() {
        for (bad, reason) in [
            (
                "",
                "an identity template starts with spiffe://{trust_domain}/",
            ),
            (
                "spiffe://other/x",
                "an identity template starts with spiffe://{trust_domain}/",
            ),
            (
                "spiffe://{trust_domain}",
                "an identity template starts with spiffe://{trust_domain}/",
            ),
            (
                "spiffe://{trust_domain}.evil/x",
                "an identity template starts with spiffe://{trust_domain}/",
            ),
            ("spiffe://{trust_domain}/{claim:a", "a { without its }"),
            (
                "spiffe://{trust_domain}/{sub}",
                "{sub} is not {claim:<name>}",
            ),
            ("spiffe://{trust_domain}/{claim:}", "a claim without a name"),
            (
                "spiffe://{trust_domain}/{claim:a}-{claim:b}",
                "claim \"b\" stands in the same segment as the one before it",
            ),
            (
                "spiffe://{trust_domain}/{claim:a}{claim:b}",
                "claim \"b\" stands in the same segment as the one before it",
            ),
        ] {
            assert_eq!(apply(bad, &json!({})), Err(reason.into()), "{bad}");
        }
        for bad in ["/a//b", "/", "/a b", "/a}", "/../{claim:a}", "/{claim:a}/"] {
            let text = format!("spiffe://{{trust_domain}}{bad}");
            assert!(text.parse::<IdentityTemplate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_required_claim_must_be_there_and_exact() {
        let template = "spiffe://{trust_domain}/{claim:sub}".parse().unwrap();
        let rule = ClaimRule::new(template).requiring("org".parse().unwrap(), "example");
        let mesh = "cluster.local".parse().unwrap();
        let judge = |claims: &str| rule.identity(claims.as_bytes(), &mesh).map(|_| ());
        let org = || "org".parse().unwrap();
        assert_eq!(judge(r#"{"sub":"a","org":"example"}"#), Ok(()));
        for (claims, error) in [
            (r#"{"sub":"a"}"#, ClaimError::Missing { name: org() }),
            (
                r#"{"sub":"a","org":"Example"}"#,
                ClaimError::OtherValue { name: org() },
            ),
            (
                r#"{"sub":"a","org":["example"]}"#,
                ClaimError::NotText { name: org() },
            ),
            (
                r#"{"org":"other","sub":"a","org":"example"}"#,
                ClaimError::Json { column: 41 },
            ),
        ] {
            assert_eq!(judge(claims), Err(error), "{claims}");
        }
    }

    proptest! {
        #[test]
        fn different_claims_never_give_the_same_id(
            a in "[a-z.-]{1,4}", b in "[a-z.-]{1,4}", c in "[a-z.-]{1,4}", d in "[a-z.-]{1,4}",
        ) {
            let text = "spiffe://{trust_domain}/ns/x-{claim:a}/sa/{claim:b}-y";
            let id = |a: &str, b: &str| apply(text, &json!({ "a": a, "b": b })).unwrap();
            prop_assert_eq!(id(&a, &b) == id(&c, &d), (a, b) == (c, d));
        }

        #[test]
        fn any_template_and_any_claims_are_read_without_a_panic(template in "\\PC{0,40}", value in any::<String>()) {
            for text in [template.clone(), format!("spiffe://{{trust_domain}}/{template}")] {
                let _ = apply(&text, &json!({ "a": value }));
            }
        }
    }
}
