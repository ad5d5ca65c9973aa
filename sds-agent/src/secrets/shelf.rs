//! All secrets as they are at one moment.

use std::{collections::BTreeMap, fmt, sync::Arc};

use ring::digest::{Context, SHA256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::SecretName;
use crate::clock;

/// Every secret that there is, by name. Immutable once published: readers take it whole.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    secrets: BTreeMap<SecretName, Arc<Secret>>,
    /// What goes along with all roots.
    revocation: Option<Arc<str>>,
    /// How often the shelf has changed.
    changes: u64,
    changed_at: OffsetDateTime,
}

/// One secret.
pub(crate) struct Secret {
    contents: Contents,
    version: Version,
}

/// What can be on the shelf.
pub(crate) enum Contents {
    /// A certificate and its key.
    KeyPair {
        /// The leaf and its intermediates.
        chain: String,
        /// PKCS#8.
        key: Zeroizing<String>,
        /// What the issuer says of its revocation, as DER, for Envoy to staple.
        staple: Option<Arc<[u8]>>,
        /// The end of the leaf: the pair must not be shown to anybody from then on.
        not_after: OffsetDateTime,
    },
    /// Whom to trust.
    Roots {
        /// One certificate or more.
        roots: String,
        /// Revocation lists for whoever checks certificates against the roots. The shelf puts them in.
        revocation: Option<Arc<str>>,
    },
}

/// Tells contents apart. Equal contents have equal versions, **also in another run of the agent**, so
/// that a client which comes back need not be told what it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version(Arc<str>);

impl Shelf {
    /// Nothing is there yet.
    pub(super) fn new() -> Self {
        Self {
            secrets: BTreeMap::new(),
            revocation: None,
            changes: 0,
            changed_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// The secret of this name, unless there is none or it has expired.
    pub(crate) fn valid_at(&self, name: &SecretName, now: OffsetDateTime) -> Option<&Secret> {
        let secret = self.secrets.get(name)?;
        secret
            .not_after()
            .is_none_or(|end| now < end)
            .then_some(secret)
    }

    /// The secret of this name, also if it has expired.
    pub(crate) fn last(&self, name: &SecretName) -> Option<&Secret> {
        self.secrets.get(name).map(|secret| &**secret)
    }

    /// When the shelf last changed and how often it has, in one word.
    pub(crate) fn label(&self) -> String {
        format!("{}/{}", clock::show(self.changed_at), self.changes)
    }

    /// Puts secrets into their places, all at once. Whether anything is different afterwards.
    pub(crate) fn put(
        &mut self,
        secrets: impl IntoIterator<Item = (SecretName, Arc<Secret>)>,
        now: OffsetDateTime,
    ) -> bool {
        let mut changed = false;
        for (name, secret) in secrets {
            let secret = if name.takes_revocation_lists() {
                secret.with_revocation(self.revocation.as_ref())
            } else {
                secret
            };
            if self.secrets.get(&name).map(|held| &held.version) != Some(&secret.version) {
                self.secrets.insert(name, secret);
                changed = true;
            }
        }
        if changed {
            self.changes += 1;
            self.changed_at = now;
        }
        changed
    }

    /// Replaces the revocation lists that go along with all roots. Whether anything is different afterwards.
    pub(super) fn revoke(&mut self, lists: Option<Arc<str>>, now: OffsetDateTime) -> bool {
        self.revocation = lists;
        self.put(self.secrets.clone(), now)
    }

    /// Takes a secret away that nobody wants, or that is no more. Whether it was there.
    pub(crate) fn remove(&mut self, name: &SecretName) -> bool {
        self.secrets.remove(name).is_some()
    }

    /// Every name with its secret, valid or not.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&SecretName, &Secret)> {
        self.secrets.iter().map(|(name, secret)| (name, &**secret))
    }
}

impl Secret {
    pub(crate) fn new(contents: Contents) -> Self {
        Self {
            version: contents.version(),
            contents,
        }
    }

    /// Roots with these revocation lists; everything else as it is.
    fn with_revocation(self: Arc<Self>, lists: Option<&Arc<str>>) -> Arc<Self> {
        match &self.contents {
            Contents::Roots { roots, revocation } if revocation.as_ref() != lists => {
                Arc::new(Self::new(Contents::Roots {
                    roots: roots.clone(),
                    revocation: lists.cloned(),
                }))
            }
            _ => self,
        }
    }

    /// A pair with what its issuer says of its revocation; everything else as it is.
    #[cfg(feature = "gateway")]
    pub(crate) fn with_staple(mut self, said: Option<&[u8]>) -> Self {
        if let Contents::KeyPair { staple, .. } = &mut self.contents {
            *staple = said.map(Arc::from);
            self.version = self.contents.version();
        }
        self
    }

    /// What it holds.
    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Which contents these are.
    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// When it ends, if it does.
    pub(crate) fn not_after(&self) -> Option<OffsetDateTime> {
        match &self.contents {
            Contents::KeyPair { not_after, .. } => Some(*not_after),
            Contents::Roots { .. } => None,
        }
    }
}

impl Contents {
    /// Made of what is public: a certificate belongs to one key only.
    fn version(&self) -> Version {
        let (public, more) = match self {
            Self::KeyPair { chain, staple, .. } => (chain, staple.as_deref()),
            Self::Roots { roots, revocation } => (roots, revocation.as_deref().map(str::as_bytes)),
        };
        let mut hash = Context::new(&SHA256);
        hash.update(public.as_bytes());
        hash.update(more.unwrap_or_default());
        let hash = hash.finish();
        let half = hash.as_ref().iter().take(16);
        let text: String = half.map(|byte| format!("{byte:02x}")).collect();
        Version(text.into())
    }
}

impl From<&str> for Version {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    fn roots(text: &str) -> Arc<Secret> {
        Arc::new(Secret::new(Contents::Roots {
            roots: text.to_owned(),
            revocation: None,
        }))
    }

    fn pair(chain: &str) -> Arc<Secret> {
        Arc::new(Secret::new(Contents::KeyPair {
            chain: chain.to_owned(),
            key: Zeroizing::new("KEY".to_owned()),
            staple: None,
            not_after: NOON,
        }))
    }

    #[test]
    fn equal_contents_are_no_change() {
        let mut shelf = Shelf::new();
        assert!(shelf.put([(SecretName::Roots, roots("A"))], NOON));
        assert!(!shelf.put([(SecretName::Roots, roots("A"))], NOON));
        assert!(shelf.label().ends_with("/1"));
        assert!(shelf.put([(SecretName::Roots, roots("B"))], NOON));
        assert_eq!(shelf.label(), "2026-11-21T12:00:00Z/2");
    }

    #[test]
    fn revocation_lists_go_along_with_all_roots_those_that_come_later_too() {
        let lists = |shelf: &Shelf, name| match shelf.last(&name).unwrap().contents() {
            Contents::Roots { revocation, .. } => revocation.as_deref().map(str::to_owned),
            Contents::KeyPair { .. } => panic!("a pair has none"),
        };
        let file = SecretName::FileRoots("/f".into());
        let mut shelf = Shelf::new();
        shelf.put(
            [
                (SecretName::Roots, roots("A")),
                (SecretName::KeyPair, pair("C")),
            ],
            NOON,
        );
        let plain = shelf.last(&SecretName::Roots).unwrap().version().clone();
        let pair = shelf.last(&SecretName::KeyPair).unwrap().version().clone();
        assert!(shelf.revoke(Some("LIST".into()), NOON));
        assert!(!shelf.revoke(Some("LIST".into()), NOON));
        assert_ne!(*shelf.last(&SecretName::Roots).unwrap().version(), plain);
        assert_eq!(*shelf.last(&SecretName::KeyPair).unwrap().version(), pair);
        assert!(!shelf.put([(SecretName::Roots, roots("A"))], NOON));
        assert!(shelf.put([(file.clone(), roots("B"))], NOON));
        for name in [SecretName::Roots, file.clone()] {
            assert_eq!(lists(&shelf, name).as_deref(), Some("LIST"));
        }
        assert!(shelf.revoke(None, NOON));
        assert_eq!(lists(&shelf, file), None);
        assert_eq!(*shelf.last(&SecretName::Roots).unwrap().version(), plain);
    }

    #[test]
    fn an_expired_pair_is_not_served_and_its_roots_still_are() {
        let mut shelf = Shelf::new();
        shelf.put(
            [
                (SecretName::Roots, roots("A")),
                (SecretName::KeyPair, pair("C")),
            ],
            NOON,
        );
        let second = time::Duration::SECOND;
        let held = |name, now| shelf.valid_at(&name, now).is_some();
        assert!(held(SecretName::KeyPair, NOON - second));
        assert!(!held(SecretName::KeyPair, NOON));
        assert!(held(SecretName::Roots, NOON));
    }

    #[test]
    fn debug_shows_no_key() {
        assert!(!format!("{:?}", pair("C")).contains("KEY"));
    }
}
