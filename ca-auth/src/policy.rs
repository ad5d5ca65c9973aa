//! Which callers may have which identities, and how such certificates may be.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ca_core::{PublicKeyKind, SpiffeId, TrustDomain};

use crate::caller::{Caller, Source};
use crate::identity_pattern::IdentityPattern;

mod file;

pub use file::{PolicyError, Problem};

/// The rules of a mesh: a value that is read once and never changes.
///
/// ```toml
/// # What a caller has proved to be its own, it gets. With "deny", only what an [[allow]] says.
/// own-identity = "allow"
///
/// [[allow]]
/// name = "the edge asks for the shop"
/// callers = ["/ns/gateways/sa/edge"]
/// sources = ["token"]
/// identities = ["/ns/shop/**"]
///
/// [[deny]]
/// name = "nobody is kube-system"
/// namespaces = ["kube-system"]
///
/// [[limit]]
/// name = "payments live short"
/// identities = ["/ns/payments/**"]
/// max-ttl = "1h"
/// key-types = ["ecdsa-p256", "ecdsa-p384"]
/// ```
///
/// The order of rules means nothing. For each name that a caller is to get:
/// 1. if any `deny` applies, it is refused;
/// 2. it is granted if it is the caller's own and `own-identity` is `allow`, or if any `allow` applies;
/// 3. **every** `limit` that applies holds: the shortest `max-ttl`, and the key types that all accept. A
///    longer lifetime is shortened and not refused, because agents ask for the same everywhere.
///
/// A rule applies when all conditions that it has are met; each is met by one of its values:
///
/// | condition | is met by |
/// |---|---|
/// | `callers`, `caller-namespaces` | a name that the caller has proved to be its own: an [`IdentityPattern`], or a namespace |
/// | `issuers` | the `iss` of the caller's token |
/// | `sources` | what the caller showed: `certificate`, `token`, `forwarded-certificate` |
/// | `identities`, `namespaces` | the name to be granted; in an `allow` also `own` for one of the caller's own |
///
/// An `allow` needs a condition on the caller and one on the name. An `allow` without `sources` also
/// holds for callers with a certificate, which may renew it for ever. **Every name that an `allow` gives lies in
/// the trust domain of the mesh**: a pattern of another one is refused when the file is read.
///
/// Who may have the certificate of a CA below this one is said by rules of their own, and by no `allow`:
///
/// ```toml
/// [[certificate-authority]]
/// name = "the CA of the edge cluster"
/// callers = ["/ns/mesh/sa/edge-ca"]
/// max-ttl = "720h"
/// ```
///
/// Whoever has such a certificate can name anybody. So `callers` must be there; `deny` and `limit` hold for it
/// as for the caller's own names; `max-path-length` is how many CAs may follow below it, 0 where nothing is
/// said; and `name-constraint = true` confines it to the trust domain of the mesh, where all peers can judge that.
#[derive(Clone, Debug)]
pub struct Policy {
    own: OwnIdentity,
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    limits: Vec<Limit>,
    authorities: Vec<AuthorityRule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OwnIdentity {
    #[default]
    Allow,
    Deny,
}

impl Policy {
    /// Every caller gets its own names and no others, as they are.
    pub fn own_names() -> Self {
        Self {
            own: OwnIdentity::Allow,
            allow: Vec::new(),
            deny: Vec::new(),
            limits: Vec::new(),
            authorities: Vec::new(),
        }
    }

    /// Reads the text of a policy file, in TOML.
    ///
    /// # Errors
    /// With everything that is wrong in it, and where; also when there is nothing in it, which nobody means by an empty file.
    pub fn parse(text: &str, mesh: &TrustDomain) -> Result<Self, PolicyError> {
        file::read(text, mesh)
    }

    /// How many rules there are of each kind: allow, deny, limit.
    pub fn len(&self) -> (usize, usize, usize) {
        (self.allow.len(), self.deny.len(), self.limits.len())
    }

    /// How many rules say who may be a CA below this one.
    pub fn authorities(&self) -> usize {
        self.authorities.len()
    }

    /// Whether a caller gets the certificate of a CA. A rule must say so, and none of its own names may be denied.
    pub(crate) fn judge_authority(&self, caller: &Caller) -> AuthorityVerdict {
        let own = caller.identities.as_slice();
        let met =
            |conditions: &Conditions| own.iter().any(|id| conditions.are_met(caller, id, true));
        if let Some(rule) = self.deny.iter().find(|rule| met(&rule.conditions)) {
            return AuthorityVerdict::Denied(rule.name.clone());
        }
        let Some(rule) = self.authorities.iter().find(|rule| met(&rule.conditions)) else {
            return AuthorityVerdict::NotAllowed;
        };
        let mut limits = Limits {
            max_ttl: rule.max_ttl.map(|ttl| (ttl, rule.name.clone())),
            key_types: Vec::new(),
        };
        for limit in self.limits.iter().filter(|limit| met(&limit.conditions)) {
            limits.add(limit);
        }
        AuthorityVerdict::Allowed {
            by: rule.name.clone(),
            limits,
            rights: rule.rights,
        }
    }

    /// Whether a caller gets one name.
    pub(crate) fn judge(&self, caller: &Caller, wanted: &SpiffeId) -> Verdict {
        let is_own = caller.identities.as_slice().contains(wanted);
        let applies = |rule: &&Rule| rule.conditions.are_met(caller, wanted, is_own);
        if let Some(rule) = self.deny.iter().find(applies) {
            return Verdict::Denied(rule.name.clone());
        }
        let allowed = if is_own && self.own == OwnIdentity::Allow {
            Some(RuleName::OWN)
        } else {
            self.allow
                .iter()
                .find(applies)
                .map(|rule| rule.name.clone())
        };
        let Some(by) = allowed else {
            return Verdict::NotAllowed;
        };
        let limits = self.limits(caller, wanted, is_own);
        Verdict::Allowed { by, limits }
    }

    /// The limits of a name that is granted for another reason than the rules; `None` where a policy keeps callers from
    /// what is not allowed by a rule.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn limits_beyond_own(&self, caller: &Caller, wanted: &SpiffeId) -> Option<Limits> {
        (self.own == OwnIdentity::Allow).then(|| self.limits(caller, wanted, false))
    }

    fn limits(&self, caller: &Caller, wanted: &SpiffeId, is_own: bool) -> Limits {
        let mut limits = Limits::default();
        for limit in &self.limits {
            if limit.conditions.are_met(caller, wanted, is_own) {
                limits.add(limit);
            }
        }
        limits
    }
}

pub(crate) enum Verdict {
    Allowed { by: RuleName, limits: Limits },
    Denied(RuleName),
    NotAllowed,
}

pub(crate) enum AuthorityVerdict {
    Allowed {
        by: RuleName,
        limits: Limits,
        rights: AuthorityRights,
    },
    Denied(RuleName),
    NotAllowed,
}

/// How far the rights of a CA below this one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AuthorityRights {
    pub(crate) max_path_length: u8,
    pub(crate) constrained: bool,
}

/// Its conditions are on the caller alone: a CA's certificate has no name of the mesh.
#[derive(Clone, Debug)]
struct AuthorityRule {
    name: RuleName,
    conditions: Conditions,
    max_ttl: Option<Duration>,
    rights: AuthorityRights,
}

#[derive(Clone, Debug)]
struct Rule {
    name: RuleName,
    conditions: Conditions,
}

#[derive(Clone, Debug)]
struct Limit {
    name: RuleName,
    conditions: Conditions,
    max_ttl: Option<Duration>,
    key_types: Option<Arc<[KeyType]>>,
}

/// `None` and nothing else is no condition: the file cannot say an empty list.
#[derive(Clone, Debug, Default)]
struct Conditions {
    callers: Option<Vec<IdentityPattern>>,
    issuers: Option<BTreeSet<String>>,
    sources: Option<Vec<SourceKind>>,
    identities: Option<Identities>,
}

#[derive(Clone, Debug, Default)]
struct Identities {
    patterns: Vec<IdentityPattern>,
    own: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceKind {
    Certificate,
    Token,
    ForwardedCertificate,
}

impl Conditions {
    fn are_met(&self, caller: &Caller, wanted: &SpiffeId, is_own: bool) -> bool {
        let callers = self.callers.as_ref().is_none_or(|patterns| {
            let mut own = caller.identities.as_slice().iter();
            own.any(|id| patterns.iter().any(|pattern| pattern.matches(id)))
        });
        let issuers = self
            .issuers
            .as_ref()
            .is_none_or(|issuers| match &caller.source {
                Source::Token {
                    issuer: Some(issuer),
                } => issuers.contains(issuer),
                _ => false,
            });
        let sources = self.sources.as_ref().is_none_or(|sources| {
            sources.contains(&match &caller.source {
                Source::ClientCertificate { .. } => SourceKind::Certificate,
                Source::Token { .. } => SourceKind::Token,
                Source::ForwardedCertificate { .. } => SourceKind::ForwardedCertificate,
            })
        });
        let identities = self.identities.as_ref().is_none_or(|identities| {
            (identities.own && is_own) || identities.patterns.iter().any(|p| p.matches(wanted))
        });
        callers && issuers && sources && identities
    }
}

/// What the certificates of a grant must keep to. Without any, everything that the server allows is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    max_ttl: Option<(Duration, RuleName)>,
    key_types: Vec<(Arc<[KeyType]>, RuleName)>,
}

impl Limits {
    fn add(&mut self, limit: &Limit) {
        if let Some(ttl) = limit.max_ttl
            && self
                .max_ttl
                .as_ref()
                .is_none_or(|(shortest, _)| ttl < *shortest)
        {
            self.max_ttl = Some((ttl, limit.name.clone()));
        }
        if let Some(types) = &limit.key_types {
            self.key_types.push((Arc::clone(types), limit.name.clone()));
        }
    }

    /// Both hold: one certificate carries all names.
    pub(crate) fn merge(&mut self, other: Self) {
        if let Some((ttl, name)) = other.max_ttl
            && self
                .max_ttl
                .as_ref()
                .is_none_or(|(shortest, _)| ttl < *shortest)
        {
            self.max_ttl = Some((ttl, name));
        }
        self.key_types.extend(other.key_types);
    }

    pub(crate) fn max_ttl(&self) -> Option<Duration> {
        self.max_ttl.as_ref().map(|(ttl, _)| *ttl)
    }

    /// What is left of a lifetime.
    pub(crate) fn lifetime(&self, resolved: Duration) -> Duration {
        self.max_ttl().map_or(resolved, |max| resolved.min(max))
    }

    /// The rule that does not accept such a key.
    pub(crate) fn refuses(&self, kind: PublicKeyKind) -> Option<&RuleName> {
        let refuses = |types: &[KeyType]| !types.iter().any(|accepted| accepted.fits(kind));
        let mut all = self.key_types.iter();
        all.find(|(types, _)| refuses(types)).map(|(_, name)| name)
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &RuleName> {
        let types = self.key_types.iter().map(|(_, name)| name);
        self.max_ttl.iter().map(|(_, name)| name).chain(types)
    }
}

/// A kind of key as a policy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyType {
    EcdsaP256,
    EcdsaP384,
    Ed25519,
    /// Of any size, or of exactly this one.
    Rsa(Option<u16>),
}

impl KeyType {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ecdsa-p256" => Self::EcdsaP256,
            "ecdsa-p384" => Self::EcdsaP384,
            "ed25519" => Self::Ed25519,
            "rsa" => Self::Rsa(None),
            "rsa-2048" => Self::Rsa(Some(2048)),
            "rsa-3072" => Self::Rsa(Some(3072)),
            "rsa-4096" => Self::Rsa(Some(4096)),
            _ => return None,
        })
    }

    fn fits(self, kind: PublicKeyKind) -> bool {
        match (self, kind) {
            (Self::EcdsaP256, PublicKeyKind::EcdsaP256)
            | (Self::EcdsaP384, PublicKeyKind::EcdsaP384)
            | (Self::Ed25519, PublicKeyKind::Ed25519) => true,
            (Self::Rsa(size), PublicKeyKind::Rsa { bits }) => size.is_none_or(|size| size == bits),
            // Kinds that may come are accepted where nobody limits them.
            _ => false,
        }
    }
}

/// Which rule made a decision: for the record, and for whoever asks why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleName(Origin);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Own,
    NodeProxy,
    Policy(Arc<str>),
}

impl RuleName {
    /// The rule that holds without a policy: what is proved to be a caller's own, it gets.
    pub const OWN: Self = Self(Origin::Own);

    /// The rule that holds for node proxies: what a pod on its node has, it gets.
    pub const NODE_PROXY: Self = Self(Origin::NodeProxy);

    fn of_policy(name: Arc<str>) -> Self {
        Self(Origin::Policy(name))
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Own => f.write_str("own identity"),
            Origin::NodeProxy => f.write_str("pod on the same node"),
            Origin::Policy(name) => write!(f, "policy rule {name:?}"),
        }
    }
}

#[cfg(test)]
mod tests;
