//! For which names a caller may ask.

use std::sync::Arc;
use std::time::Duration;

use ca_core::{IdentityError, PublicKeyKind, SpiffeId};

use crate::caller::{Caller, Identities};
#[cfg(feature = "kubernetes")]
use crate::kubernetes::{NodeProxies, NodeProxyRefusal};
use crate::policy::{AuthorityRights, AuthorityVerdict, Limits, Policy, RuleName, Verdict};

/// Decides for which names a caller gets a certificate: its own, one of its own, or what a policy says.
///
/// This is the one place where names are granted: also those of node proxies, which ask on behalf of the pods on their
/// node. A policy that denies a name denies it to them as well, and its limits hold; and where it keeps callers from their
/// own names, a rule must allow what they ask for.
#[derive(Debug)]
pub struct Authorizer {
    policy: CurrentPolicy,
    #[cfg(feature = "kubernetes")]
    node_proxies: Option<NodeProxies>,
}

#[derive(Debug)]
enum CurrentPolicy {
    Fixed(Arc<Policy>),
    #[cfg(feature = "files")]
    Followed(ca_core::files::FollowedFiles<Policy>),
}

impl Authorizer {
    /// Every caller gets its own names and no others.
    pub fn own_names() -> Self {
        Self::by_policy(Policy::own_names())
    }

    /// Decides by a policy.
    pub fn by_policy(policy: Policy) -> Self {
        Self::by(CurrentPolicy::Fixed(Arc::new(policy)))
    }

    /// Decides by a policy in a file, as of the last time that it could be read.
    #[cfg(feature = "files")]
    pub fn by_policy_file(file: ca_core::files::FollowedFiles<Policy>) -> Self {
        Self::by(CurrentPolicy::Followed(file))
    }

    fn by(policy: CurrentPolicy) -> Self {
        Self {
            policy,
            #[cfg(feature = "kubernetes")]
            node_proxies: None,
        }
    }

    /// Lets node proxies ask for the names of the pods on their node.
    #[cfg(feature = "kubernetes")]
    #[must_use]
    pub fn with_node_proxies(mut self, proxies: NodeProxies) -> Self {
        self.node_proxies = Some(proxies);
        self
    }

    /// Grants the caller's names; or, when it asks `on_behalf_of` one name, that name alone.
    ///
    /// An empty `on_behalf_of` is the same as none: that is how the wire says it.
    ///
    /// # Errors
    /// When the caller asks for a name that it may not have. When one of its own names is refused, so are
    /// the others: it asked for all of them.
    pub fn authorize(
        &self,
        caller: Caller,
        on_behalf_of: Option<&str>,
    ) -> Result<Grant, AuthzError> {
        let identities = match on_behalf_of.filter(|name| !name.is_empty()) {
            None => caller.identities.clone(),
            Some(wanted) => Identities::from(wanted.parse::<SpiffeId>()?),
        };
        // Taken once: all names of a request are judged by one policy.
        let policy = self.policy.current();
        let mut limits = Limits::default();
        let mut rules = Vec::new();
        for wanted in identities.as_slice() {
            match policy.judge(&caller, wanted) {
                Verdict::Allowed { by, limits: more } => {
                    rules.push(by);
                    limits.merge(more);
                }
                Verdict::Denied(rule) => {
                    return Err(AuthzError::Denied {
                        caller: Box::new(caller.identities),
                        wanted: wanted.clone(),
                        rule,
                    });
                }
                Verdict::NotAllowed => {
                    limits.merge(self.as_node_proxy(&policy, &caller, wanted, &mut rules)?);
                }
            }
        }
        rules.extend(limits.rules().cloned());
        Ok(Grant {
            caller,
            identities,
            limits,
            rules: each_once(rules),
        })
    }

    /// What is not a caller's own, and what no rule allows, it may have for a pod on its node.
    #[cfg(feature = "kubernetes")]
    fn as_node_proxy(
        &self,
        policy: &Policy,
        caller: &Caller,
        wanted: &SpiffeId,
        rules: &mut Vec<RuleName>,
    ) -> Result<Limits, AuthzError> {
        let refused = || not_its_name(caller, wanted);
        let proxies = self.node_proxies.as_ref().ok_or_else(refused)?;
        let limits = policy.limits_beyond_own(caller, wanted);
        let limits = limits.ok_or_else(refused)?;
        match proxies.judge(caller, wanted) {
            Ok(()) => {
                rules.push(RuleName::NODE_PROXY);
                Ok(limits)
            }
            Err(reason) => Err(AuthzError::NodeProxy {
                caller: Box::new(caller.identities.clone()),
                wanted: wanted.clone(),
                reason: Box::new(reason),
            }),
        }
    }

    #[cfg(not(feature = "kubernetes"))]
    #[expect(
        clippy::unused_self,
        reason = "with the feature `kubernetes` it knows who else may"
    )]
    fn as_node_proxy(
        &self,
        _: &Policy,
        caller: &Caller,
        wanted: &SpiffeId,
        _: &mut Vec<RuleName>,
    ) -> Result<Limits, AuthzError> {
        Err(not_its_name(caller, wanted))
    }

    /// Grants the certificate of a CA below this one. Without a policy nobody gets it.
    ///
    /// # Errors
    /// When no rule says that the caller may be a CA, or one denies any of its names; and when it asks on behalf of
    /// somebody, because who holds the key of a CA must be who has asked for it.
    pub fn authorize_authority(
        &self,
        caller: Caller,
        on_behalf_of: Option<&str>,
    ) -> Result<AuthorityGrant, AuthzError> {
        let refused = |caller: Caller, rule| AuthzError::NotAnAuthority {
            caller: Box::new(caller.identities),
            rule,
        };
        if on_behalf_of.is_some_and(|name| !name.is_empty()) {
            return Err(refused(caller, None));
        }
        match self.policy.current().judge_authority(&caller) {
            AuthorityVerdict::Allowed { by, limits, rights } => {
                let mut rules = vec![by];
                rules.extend(limits.rules().cloned());
                Ok(AuthorityGrant {
                    caller,
                    limits,
                    rights,
                    rules: each_once(rules),
                })
            }
            AuthorityVerdict::Denied(rule) => Err(refused(caller, Some(rule))),
            AuthorityVerdict::NotAllowed => Err(refused(caller, None)),
        }
    }
}

fn not_its_name(caller: &Caller, wanted: &SpiffeId) -> AuthzError {
    AuthzError::NotItsName {
        caller: Box::new(caller.identities.clone()),
        wanted: wanted.clone(),
    }
}

fn each_once(rules: Vec<RuleName>) -> Box<[RuleName]> {
    let mut seen: Vec<RuleName> = Vec::new();
    for rule in rules {
        if !seen.contains(&rule) {
            seen.push(rule);
        }
    }
    seen.into()
}

impl CurrentPolicy {
    fn current(&self) -> Arc<Policy> {
        match self {
            Self::Fixed(policy) => Arc::clone(policy),
            #[cfg(feature = "files")]
            Self::Followed(file) => file.current(),
        }
    }
}

/// Permission to certify names. Only [`Authorizer::authorize`] makes one, so nothing is signed
/// without a decision:
///
/// ```compile_fail,E0451
/// fn forge(grant: ca_auth::Grant, caller: ca_auth::Caller) -> ca_auth::Grant {
///     ca_auth::Grant { caller, ..grant }
/// }
/// ```
#[derive(Debug)]
pub struct Grant {
    caller: Caller,
    identities: Identities,
    limits: Limits,
    rules: Box<[RuleName]>,
}

impl Grant {
    /// Who asked, for the record.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The names that may be certified: at least one.
    pub fn identities(&self) -> &[SpiffeId] {
        self.identities.as_slice()
    }

    /// The rules that made the decision: those that granted a name, then those that limit the certificate.
    pub fn rules(&self) -> &[RuleName] {
        &self.rules
    }

    /// The longest lifetime of the certificate, if a policy limits it. **To be applied by whoever signs**;
    /// see [`lifetime`](Self::lifetime).
    pub fn max_ttl(&self) -> Option<Duration> {
        self.limits.max_ttl()
    }

    /// The lifetime that the caller gets where it would get `resolved` without a policy. Shortened and not
    /// refused: agents ask for the same everywhere, and go by what they get.
    pub fn lifetime(&self, resolved: Duration) -> Duration {
        self.limits.lifetime(resolved)
    }

    /// Whether the certificate may be for such a key. **To be asked by whoever signs.**
    ///
    /// # Errors
    /// When a rule of the policy does not accept it.
    pub fn check_key(&self, kind: PublicKeyKind) -> Result<(), KeyRefused> {
        check_key(&self.limits, kind)
    }

    /// The names that may be certified, owned.
    pub fn into_identities(self) -> Vec<SpiffeId> {
        self.identities.into_vec()
    }
}

/// Permission to certify the caller's key as a CA below this one. Only [`Authorizer::authorize_authority`] makes one:
///
/// ```compile_fail,E0451
/// fn forge(grant: ca_auth::AuthorityGrant, caller: ca_auth::Caller) -> ca_auth::AuthorityGrant {
///     ca_auth::AuthorityGrant { caller, ..grant }
/// }
/// ```
#[derive(Debug)]
pub struct AuthorityGrant {
    caller: Caller,
    limits: Limits,
    rights: AuthorityRights,
    rules: Box<[RuleName]>,
}

impl AuthorityGrant {
    /// Who asked, for the record and for the name of the CA.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The rules that made the decision: first the one that granted it.
    pub fn rules(&self) -> &[RuleName] {
        &self.rules
    }

    /// How many CAs may follow below it.
    pub fn max_path_length(&self) -> u8 {
        self.rights.max_path_length
    }

    /// Whether what it certifies is to be confined to the trust domain of the mesh.
    pub fn is_constrained(&self) -> bool {
        self.rights.constrained
    }

    /// As [`Grant::lifetime`].
    pub fn lifetime(&self, resolved: Duration) -> Duration {
        self.limits.lifetime(resolved)
    }

    /// As [`Grant::check_key`]. **To be asked by whoever signs.**
    ///
    /// # Errors
    /// When a rule of the policy does not accept it.
    pub fn check_key(&self, kind: PublicKeyKind) -> Result<(), KeyRefused> {
        check_key(&self.limits, kind)
    }
}

fn check_key(limits: &Limits, kind: PublicKeyKind) -> Result<(), KeyRefused> {
    match limits.refuses(kind) {
        None => Ok(()),
        Some(rule) => Err(KeyRefused {
            kind,
            rule: rule.clone(),
        }),
    }
}

/// Why a caller does not get the names it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthzError {
    /// What it asks for is not a SPIFFE ID.
    #[error("asks on behalf of something that is no identity: {0}")]
    NotAnIdentity(#[from] IdentityError),
    /// It asks for a name that it has not proved to be its own, and no rule lets it.
    #[error("{} asks for {wanted}, which no rule allows", names(caller))]
    NotItsName {
        /// The caller's own names.
        caller: Box<Identities>,
        /// The name it asks for.
        wanted: SpiffeId,
    },
    /// A policy refuses what it asks for.
    #[error("{} asks for {wanted}, which {rule} denies", names(caller))]
    Denied {
        /// The caller's own names.
        caller: Box<Identities>,
        /// The name it asks for.
        wanted: SpiffeId,
        /// The rule.
        rule: RuleName,
    },
    /// It asks for the name of a pod, and is no node proxy that may have it.
    #[cfg(feature = "kubernetes")]
    #[error(
        "{} asks for {wanted}, which no rule allows, and not as a node proxy: {reason}",
        names(caller)
    )]
    NodeProxy {
        /// The caller's own names.
        caller: Box<Identities>,
        /// The name it asks for.
        wanted: SpiffeId,
        /// Why not.
        reason: Box<NodeProxyRefusal>,
    },
    /// It asks for the certificate of a CA, which nothing lets it have.
    #[error(
        "{} asks to be a CA, which {}",
        names(caller),
        rule.as_ref().map_or_else(
            || "no rule allows".to_owned(),
            |rule| format!("{rule} denies")
        )
    )]
    NotAnAuthority {
        /// The caller's own names.
        caller: Box<Identities>,
        /// The rule that denies it, if there is one.
        rule: Option<RuleName>,
    },
}

impl AuthzError {
    /// Whether the same caller may get the same name in a moment.
    pub fn is_retryable(&self) -> bool {
        match self {
            #[cfg(feature = "kubernetes")]
            Self::NodeProxy { reason, .. } => reason.is_retryable(),
            _ => false,
        }
    }
}

/// A policy does not accept such a key for this name. The caller may be told: it has the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key of kind {kind} is not accepted by {rule}")]
pub struct KeyRefused {
    kind: PublicKeyKind,
    rule: RuleName,
}

fn names(identities: &Identities) -> String {
    let names: Vec<&str> = identities.as_slice().iter().map(SpiffeId::as_str).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::caller::Source;

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
    const GATE: &str = "spiffe://cluster.local/ns/shop/sa/gate";

    fn authorize(own: &[&str], on_behalf_of: Option<&str>) -> Result<Vec<String>, AuthzError> {
        let names = own.iter().map(|name| name.parse().unwrap()).collect();
        let caller = Caller::new(
            "test",
            Source::Token { issuer: None },
            Identities::new(names).unwrap(),
            OffsetDateTime::UNIX_EPOCH,
        );
        let grant = Authorizer::own_names().authorize(caller, on_behalf_of)?;
        Ok(grant
            .into_identities()
            .iter()
            .map(ToString::to_string)
            .collect())
    }

    #[test]
    fn own_names_are_granted_in_their_order() {
        assert_eq!(authorize(&[CART], None).unwrap(), [CART]);
        assert_eq!(authorize(&[GATE, CART], None).unwrap(), [GATE, CART]);
        assert_eq!(authorize(&[CART], Some("")).unwrap(), [CART]);
    }

    #[test]
    fn one_of_several_own_names_can_be_picked() {
        assert_eq!(authorize(&[GATE, CART], Some(CART)).unwrap(), [CART]);
    }

    #[test]
    fn another_name_is_refused() {
        for (wanted, as_identity) in [
            (GATE, true),
            ("spiffe://other/ns/shop/sa/cart", true),
            ("spiffe://cluster.local/ns/shop/sa/cart2", true),
            ("spiffe://cluster.local", true),
            ("cart", false),
            ("spiffe://cluster.local/ns/shop/sa/cart,", false),
            ("spiffe://cluster.local/ns/shop/sa/cart ", false),
            ("SPIFFE://cluster.local/ns/shop/sa/cart", false),
        ] {
            let error = authorize(&[CART], Some(wanted)).unwrap_err();
            assert_eq!(
                matches!(error, AuthzError::NotItsName { .. }),
                as_identity,
                "{wanted}: {error}"
            );
        }
    }
}
