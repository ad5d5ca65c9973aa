//! The rules of a policy, read a second time from the plain TOML and applied one after the other.

use std::time::Duration;

use ca_auth::{Caller, Source};
use ca_core::{PublicKeyKind, SpiffeId, parse_duration};
use toml::{Table, Value};

use crate::glob;

/// A policy that has been accepted.
pub struct Rulebook {
    own: bool,
    allow: Vec<Table>,
    deny: Vec<Table>,
    limits: Vec<Table>,
}

/// What somebody gets.
#[derive(Default)]
pub struct Given {
    pub max_ttl: Option<Duration>,
    key_types: Vec<Vec<String>>,
}

impl Rulebook {
    pub fn read(text: &str) -> Self {
        let table: Table = text.parse().expect("an accepted policy is TOML");
        let rules = |key: &str| {
            let rules = table.get(key).and_then(Value::as_array).cloned();
            let rules = rules.unwrap_or_default().into_iter();
            let rules = rules.map(|rule| rule.as_table().expect("a rule is a table").clone());
            rules.collect::<Vec<_>>()
        };
        Self {
            own: table
                .get("own-identity")
                .is_none_or(|own| own.as_str() == Some("allow")),
            allow: rules("allow"),
            deny: rules("deny"),
            limits: rules("limit"),
        }
    }

    pub fn len(&self) -> (usize, usize, usize) {
        (self.allow.len(), self.deny.len(), self.limits.len())
    }

    /// What `caller` gets who asks for these names; `None` when it is refused one of them.
    pub fn judge(&self, caller: &Caller, wanted: &[SpiffeId]) -> Option<Given> {
        let mut given = Given::default();
        for id in wanted {
            let applies = |rule: &&Table| applies(rule, caller, id);
            if self.deny.iter().any(|rule| applies(&rule)) {
                return None;
            }
            let by_right = self.own && caller.identities.as_slice().contains(id);
            if !by_right && !self.allow.iter().any(|rule| applies(&rule)) {
                return None;
            }
            for limit in self.limits.iter().filter(applies) {
                if let Some(ttl) = limit.get("max-ttl").and_then(Value::as_str) {
                    let ttl = parse_duration(ttl).expect("an accepted lifetime");
                    given.max_ttl = Some(given.max_ttl.map_or(ttl, |shortest| shortest.min(ttl)));
                }
                given.key_types.extend(list(limit, "key-types"));
            }
        }
        Some(given)
    }
}

impl Given {
    pub fn accepts(&self, kind: PublicKeyKind) -> bool {
        let (name, sized) = match kind {
            PublicKeyKind::EcdsaP256 => ("ecdsa-p256", String::new()),
            PublicKeyKind::EcdsaP384 => ("ecdsa-p384", String::new()),
            PublicKeyKind::Ed25519 => ("ed25519", String::new()),
            PublicKeyKind::Rsa { bits } => ("rsa", format!("rsa-{bits}")),
            _ => panic!("a kind of key that is new"),
        };
        let mut lists = self.key_types.iter();
        lists.all(|list| {
            list.iter()
                .any(|accepted| *accepted == name || *accepted == sized)
        })
    }
}

fn list(rule: &Table, key: &str) -> Option<Vec<String>> {
    let values = rule.get(key)?.as_array().expect("a list");
    let texts = values
        .iter()
        .map(|value| value.as_str().expect("text").to_owned());
    Some(texts.collect())
}

/// Every condition that is written there.
fn applies(rule: &Table, caller: &Caller, wanted: &SpiffeId) -> bool {
    let own = caller.identities.as_slice();
    let callers = patterns(rule, "callers", "caller-namespaces");
    let identities = patterns(rule, "identities", "namespaces");
    let by_pattern = |pattern: &str, id: &SpiffeId| match pattern {
        "own" => own.contains(id),
        pattern => glob::matches(&glob::whole(pattern, "cluster.local"), id.as_str()),
    };
    let any = |patterns: &[String], id| patterns.iter().any(|pattern| by_pattern(pattern, id));
    let (source, issuer) = match &caller.source {
        Source::ClientCertificate { .. } => ("certificate", None),
        Source::Token { issuer } => ("token", issuer.as_ref()),
        _ => ("forwarded-certificate", None),
    };
    callers.is_none_or(|callers| own.iter().any(|id| any(&callers, id)))
        && identities.is_none_or(|identities| any(&identities, wanted))
        && list(rule, "sources").is_none_or(|sources| sources.iter().any(|s| s == source))
        && list(rule, "issuers")
            .is_none_or(|issuers| issuer.is_some_and(|issuer| issuers.contains(issuer)))
}

fn patterns(rule: &Table, ids: &str, namespaces: &str) -> Option<Vec<String>> {
    let namespaces = list(rule, namespaces);
    let namespaces = namespaces.map(|all| all.iter().map(|ns| format!("/ns/{ns}/sa/*")).collect());
    match (list(rule, ids), namespaces) {
        (Some(ids), Some(namespaces)) => Some([ids, namespaces].concat()),
        (ids, namespaces) => ids.or(namespaces),
    }
}
