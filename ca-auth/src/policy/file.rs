//! The text of a policy, and everything that may be wrong with it.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ca_core::{TrustDomain, parse_duration};
use serde::Deserialize;
use toml::Spanned;

use super::{
    AuthorityRights, AuthorityRule, Conditions, Identities, KeyType, Limit, OwnIdentity, Policy,
    Rule, RuleName, SourceKind,
};
use crate::identity_pattern::{IdentityPattern, PatternError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    own_identity: OwnIdentity,
    #[serde(default)]
    allow: Vec<Table>,
    #[serde(default)]
    deny: Vec<Table>,
    #[serde(default)]
    limit: Vec<Table>,
    #[serde(default)]
    certificate_authority: Vec<Table>,
}

/// One table for all kinds, so that a key in the wrong one is told apart from a key that does not exist.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    name: Spanned<String>,
    callers: Option<List>,
    caller_namespaces: Option<List>,
    issuers: Option<List>,
    sources: Option<List>,
    identities: Option<List>,
    namespaces: Option<List>,
    max_ttl: Option<Spanned<String>>,
    key_types: Option<List>,
    max_path_length: Option<Spanned<u8>>,
    name_constraint: Option<Spanned<bool>>,
}

type List = Spanned<Vec<Spanned<String>>>;

pub(super) fn read(text: &str, mesh: &TrustDomain) -> Result<Policy, PolicyError> {
    let mut problems = Problems {
        text,
        found: Vec::new(),
    };
    if says_nothing(text) {
        problems.add(
            0..0,
            "there is nothing in it (own names and no others are written: own-identity = \"allow\")",
        );
        return Err(problems.into_error());
    }
    let file: File = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            let is_toml = text.parse::<toml::Table>().is_ok();
            let hint = if is_toml {
                ""
            } else {
                " (a policy file is TOML)"
            };
            let message = format!("{}{hint}", error.message());
            problems.add(error.span().unwrap_or_default(), &message);
            return Err(problems.into_error());
        }
    };
    let mut names = BTreeSet::new();
    let mut reader = Reader {
        mesh,
        problems: &mut problems,
        names: &mut names,
    };
    let allow = file
        .allow
        .into_iter()
        .map(|table| reader.allow(table))
        .collect();
    let deny = file
        .deny
        .into_iter()
        .map(|table| reader.deny(table))
        .collect();
    let limits = file
        .limit
        .into_iter()
        .map(|table| reader.limit(table))
        .collect();
    let authorities = file
        .certificate_authority
        .into_iter()
        .map(|table| reader.authority(table))
        .collect();
    if !problems.found.is_empty() {
        return Err(problems.into_error());
    }
    Ok(Policy {
        own: file.own_identity,
        allow,
        deny,
        limits,
        authorities,
    })
}

/// As a file is between the moment at which it is cut off and the one at which it is written anew: who is denied something
/// must not have it meanwhile.
fn says_nothing(text: &str) -> bool {
    let mut lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    lines.all(|line| line.is_empty() || line.starts_with('#'))
}

/// Notes what is wrong and goes on, so that all of it is told at once. What it makes of a wrong table is never used.
struct Reader<'a, 'text> {
    mesh: &'a TrustDomain,
    problems: &'a mut Problems<'text>,
    names: &'a mut BTreeSet<String>,
}

impl Reader<'_, '_> {
    fn allow(&mut self, table: Table) -> Rule {
        let span = table.name.span();
        self.no_limits(&table);
        self.no_rights(&table);
        self.own_trust_domain_alone(table.identities.as_ref());
        let (name, conditions) = self.common(table, true);
        let who = conditions.callers.is_some()
            || conditions.issuers.is_some()
            || conditions.sources.is_some();
        if !who {
            self.problems.add(
                span.clone(),
                "say which callers: callers, caller-namespaces, issuers or sources (callers = [\"**\"] for all)",
            );
        }
        if conditions.identities.is_none() {
            self.problems.add(
                span,
                "say what they may have: identities or namespaces (identities = [\"own\"] for their own)",
            );
        }
        Rule { name, conditions }
    }

    fn deny(&mut self, table: Table) -> Rule {
        let span = table.name.span();
        self.no_limits(&table);
        self.no_rights(&table);
        let (name, conditions) = self.common(table, false);
        let Conditions {
            callers,
            issuers,
            sources,
            identities,
        } = &conditions;
        if callers.is_none() && issuers.is_none() && sources.is_none() && identities.is_none() {
            self.problems
                .add(span, "a deny without a condition would refuse everybody");
        }
        Rule { name, conditions }
    }

    fn limit(&mut self, mut table: Table) -> Limit {
        if table.max_ttl.is_none() && table.key_types.is_none() {
            self.problems
                .add(table.name.span(), "a limit has a max-ttl or key-types");
        }
        self.no_rights(&table);
        let max_ttl = self.max_ttl(table.max_ttl.take());
        let key_types = table.key_types.take().map(|list| {
            let types = self.each(list, |text| {
                KeyType::parse(text).ok_or_else(|| {
                    "not a key type: ecdsa-p256, ecdsa-p384, ed25519, rsa, rsa-2048, rsa-3072, rsa-4096"
                        .to_owned()
                })
            });
            types.into()
        });
        let (name, conditions) = self.common(table, false);
        Limit {
            name,
            conditions,
            max_ttl,
            key_types,
        }
    }

    fn authority(&mut self, mut table: Table) -> AuthorityRule {
        if table.callers.is_none() && table.caller_namespaces.is_none() {
            self.problems.add(
                table.name.span(),
                "say which callers: callers or caller-namespaces",
            );
        }
        for list in [&table.identities, &table.namespaces].into_iter().flatten() {
            self.problems.add(
                list.span(),
                "a CA's certificate has no name of the mesh: only callers are named here",
            );
        }
        if let Some(types) = &table.key_types {
            self.problems.add(types.span(), "only a [[limit]] has this");
        }
        let max_ttl = self.max_ttl(table.max_ttl.take());
        let path_length = table.max_path_length.take().map(Spanned::into_inner);
        let constrained = table.name_constraint.take().map(Spanned::into_inner);
        let (name, conditions) = self.common(table, false);
        AuthorityRule {
            name,
            conditions,
            max_ttl,
            rights: AuthorityRights {
                max_path_length: path_length.unwrap_or(0),
                constrained: constrained.unwrap_or(false),
            },
        }
    }

    fn max_ttl(&mut self, text: Option<Spanned<String>>) -> Option<Duration> {
        let text = text?;
        match parse_duration(text.get_ref()).map_err(|error| error.to_string()) {
            Ok(ttl) if ttl.as_secs() >= 1 => return Some(ttl),
            Ok(_) => self.problems.add(text.span(), "shorter than one second"),
            Err(error) => self.problems.add(text.span(), &error),
        }
        None
    }

    fn no_rights(&mut self, table: &Table) {
        let only = "only a [[certificate-authority]] has this";
        if let Some(length) = &table.max_path_length {
            self.problems.add(length.span(), only);
        }
        if let Some(constraint) = &table.name_constraint {
            self.problems.add(constraint.span(), only);
        }
    }

    /// What a name of another mesh means is for that mesh to say: certified here, it would pass there for one of its own
    /// wherever the two trust each other's roots.
    fn own_trust_domain_alone(&mut self, identities: Option<&List>) {
        for text in identities.into_iter().flat_map(Spanned::get_ref) {
            let pattern = IdentityPattern::parse(text.get_ref(), self.mesh);
            if pattern.is_ok_and(|pattern| !pattern.is_in(self.mesh)) {
                self.problems.add(
                    text.span(),
                    "lies in another trust domain, whose names this CA does not give",
                );
            }
        }
    }

    fn no_limits(&mut self, table: &Table) {
        let only = "only a [[limit]] has this";
        if let Some(ttl) = &table.max_ttl {
            self.problems.add(ttl.span(), only);
        }
        if let Some(types) = &table.key_types {
            self.problems.add(types.span(), only);
        }
    }

    /// Name and conditions. `own` may be named where it means something: elsewhere it is what is wanted anyway.
    fn common(&mut self, table: Table, may_say_own: bool) -> (RuleName, Conditions) {
        let (span, name) = (table.name.span(), table.name.into_inner());
        if name.trim().is_empty() {
            self.problems
                .add(span.clone(), "an empty name tells nobody which rule it was");
        } else if !self.names.insert(name.clone()) {
            self.problems.add(span, "another rule has this name");
        }
        let mesh = self.mesh;
        let pattern = |text: &str| shown(IdentityPattern::parse(text, mesh));
        let namespace = |text: &str| shown(IdentityPattern::namespace(text, mesh));

        let callers = self.joined(table.callers, table.caller_namespaces, pattern, namespace);
        let mut own = false;
        let identities = table.identities.map(|mut list| {
            if may_say_own {
                list.get_mut().retain(|text| {
                    let is_own = text.get_ref() == OWN;
                    own |= is_own;
                    !is_own
                });
            }
            list
        });
        // With `own` taken out, nothing may be left: then the list was not empty.
        let identities = identities.filter(|list| !own || !list.get_ref().is_empty());
        let patterns = self.joined(identities, table.namespaces, pattern, namespace);
        let identities = (own || patterns.is_some()).then(|| Identities {
            patterns: patterns.unwrap_or_default(),
            own,
        });
        let sources = table.sources.map(|list| {
            self.each(list, |text| match text {
                "certificate" => Ok(SourceKind::Certificate),
                "token" => Ok(SourceKind::Token),
                "forwarded-certificate" => Ok(SourceKind::ForwardedCertificate),
                _ => Err("not a source: certificate, token, forwarded-certificate".to_owned()),
            })
        });
        let issuers = table.issuers.map(|list| {
            let issuers = self.each(list, |text| match text {
                "" => Err("an empty name".to_owned()),
                text => Ok(text.to_owned()),
            });
            issuers.into_iter().collect()
        });
        let conditions = Conditions {
            callers,
            issuers,
            sources,
            identities,
        };
        (RuleName::of_policy(name.into()), conditions)
    }

    /// The values of two lists that are one condition.
    fn joined<T>(
        &mut self,
        first: Option<List>,
        second: Option<List>,
        read_first: impl Fn(&str) -> Result<T, String>,
        read_second: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let first = first.map(|list| self.each(list, read_first));
        let second = second.map(|list| self.each(list, read_second));
        match (first, second) {
            (None, None) => None,
            (first, second) => Some(first.into_iter().chain(second).flatten().collect()),
        }
    }

    fn each<T>(&mut self, list: List, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        if list.get_ref().is_empty() {
            self.problems.add(
                list.span(),
                "an empty list: leave the key out, or say what is meant",
            );
        }
        let mut values = Vec::new();
        for text in list.into_inner() {
            match read(text.get_ref()) {
                Ok(value) => values.push(value),
                Err(error) => self.problems.add(text.span(), &error),
            }
        }
        values
    }
}

fn shown<T>(result: Result<T, PatternError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

struct Problems<'a> {
    text: &'a str,
    found: Vec<Problem>,
}

impl Problems<'_> {
    fn add(&mut self, span: Range<usize>, message: &str) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        self.found.push(Problem {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
        });
    }

    /// In the order in which a person reads the file.
    fn into_error(mut self) -> PolicyError {
        self.found
            .sort_by_key(|problem| (problem.line, problem.column));
        PolicyError(self.found.into())
    }
}

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What it is.
    pub message: Box<str>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            message,
        } = self;
        write!(f, "line {line}, column {column}: {message}")
    }
}

/// Everything that is wrong with a policy: at least one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError(Arc<[Problem]>);

impl PolicyError {
    /// What is wrong, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

/// The caller's own names, in place of a pattern.
const OWN: &str = "own";
