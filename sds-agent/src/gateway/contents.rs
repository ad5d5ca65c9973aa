//! What a Secret holds that a gateway can show, by its keys.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{ByteString, api::core::v1};
use zeroize::Zeroizing;

/// The parts of one Secret that could be served, as they came. Its type does not matter, only its keys.
pub(crate) struct Contents {
    parts: BTreeMap<&'static str, Zeroizing<Vec<u8>>>,
    /// For whoever looks for another key.
    found: Found,
}

/// A certificate with its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PairParts<'a> {
    pub(super) chain: &'a [u8],
    pub(super) key: &'a [u8],
    pub(super) staple: Option<&'a [u8]>,
}

/// A CA.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CaParts<'a> {
    pub(super) roots: &'a [u8],
    pub(super) revocation: Option<&'a [u8]>,
}

/// One way to lay a Secret out: what it takes, and what may go along.
struct Layout<const N: usize> {
    keys: [&'static str; N],
    extra: Option<&'static str>,
}

/// The generic way comes first, as Istio has it: the first that is complete wins.
const PAIRS: [Layout<2>; 2] = [
    Layout {
        keys: ["cert", "key"],
        extra: None,
    },
    Layout {
        keys: ["tls.crt", "tls.key"],
        extra: Some("tls.ocsp-staple"),
    },
];

const CAS: [Layout<1>; 2] = [
    Layout {
        keys: ["cacert"],
        extra: Some("crl"),
    },
    Layout {
        keys: ["ca.crt"],
        extra: Some("ca.crl"),
    },
];

/// Nothing else of a Secret is kept.
const KNOWN: [&str; 9] = [
    "cert",
    "key",
    "cacert",
    "crl",
    "tls.crt",
    "tls.key",
    "tls.ocsp-staple",
    "ca.crt",
    "ca.crl",
];

impl Contents {
    pub(super) fn of(secret: v1::Secret) -> Self {
        let mut data = secret.data.unwrap_or_default();
        let found = Found::of(&data);
        let parts = KNOWN.into_iter().filter_map(|key| {
            let ByteString(part) = data.remove(key)?;
            Some((key, Zeroizing::new(part)))
        });
        let parts = parts.collect();
        // Nothing of it is served, and it may be as secret as the rest.
        for ByteString(other) in data.into_values() {
            drop(Zeroizing::new(other));
        }
        Self { parts, found }
    }

    /// The pair of certificate and key.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(super) fn pair(&self) -> Result<PairParts<'_>, Missing> {
        let (layout, [chain, key]) = self.first(&PAIRS)?;
        let staple = layout.extra.and_then(|extra| self.part(extra));
        Ok(PairParts { chain, key, staple })
    }

    /// The CA. **Never a key pair**, whatever else the Secret holds.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(super) fn ca(&self) -> Result<CaParts<'_>, Missing> {
        let (layout, [roots]) = self.first(&CAS)?;
        let revocation = layout.extra.and_then(|extra| self.part(extra));
        Ok(CaParts { roots, revocation })
    }

    fn first<'a, const N: usize>(
        &self,
        layouts: &'a [Layout<N>],
    ) -> Result<(&'a Layout<N>, [&[u8]; N]), Missing> {
        for layout in layouts {
            let parts = layout.keys.map(|key| self.part(key));
            if parts.iter().all(Option::is_some) {
                return Ok((layout, parts.map(Option::unwrap_or_default)));
            }
        }
        let are_there =
            |layout: &&Layout<N>| layout.keys.iter().all(|key| self.parts.contains_key(key));
        Err(match layouts.iter().find(are_there) {
            Some(layout) => Missing::Empty(list(&layout.keys, "\" and \"")),
            None => Missing::Keys {
                expected: layouts
                    .iter()
                    .map(|layout| list(&layout.keys, " and "))
                    .collect(),
                found: self.found.clone(),
            },
        })
    }

    /// Nothing is as good as no part at all.
    fn part(&self, key: &str) -> Option<&[u8]> {
        let part = self.parts.get(key)?.as_slice();
        (!part.is_empty()).then_some(part)
    }
}

fn list(keys: &[&str], between: &str) -> String {
    keys.join(between)
}

/// It is secret.
impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents")
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

/// The keys of a Secret, as far as anybody wants to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    first: Vec<String>,
    more: usize,
}

impl Found {
    const SHOWN: usize = 3;

    fn of(data: &BTreeMap<String, ByteString>) -> Self {
        Self {
            first: data.keys().take(Self::SHOWN).cloned().collect(),
            more: data.len().saturating_sub(Self::SHOWN),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first.is_empty() {
            return f.write_str("nothing");
        }
        f.write_str(&self.first.join(", "))?;
        if self.more > 0 {
            write!(f, ", and {} more", self.more)?;
        }
        Ok(())
    }
}

/// Why a Secret has nothing to serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missing {
    /// Somebody means to fill them, perhaps.
    #[error("found keys \"{0}\", but they were empty")]
    Empty(String),
    /// It is for something else.
    #[error("expected keys ({}); found {found}", expected.join(") or ("))]
    Keys { expected: Vec<String>, found: Found },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents(data: &[(&str, &str)]) -> Contents {
        let data = data
            .iter()
            .map(|(key, part)| ((*key).to_owned(), ByteString(part.as_bytes().to_vec())));
        Contents::of(v1::Secret {
            data: Some(data.collect()),
            ..v1::Secret::default()
        })
    }

    #[test]
    fn the_generic_layout_comes_before_that_of_tls_secrets() {
        let generic = [("cert", "C"), ("key", "K"), ("cacert", "A"), ("crl", "L")];
        let tls = [
            ("tls.crt", "c"),
            ("tls.key", "k"),
            ("tls.ocsp-staple", "s"),
            ("ca.crt", "a"),
            ("ca.crl", "l"),
        ];
        let pair =
            |chain: &'static str, key: &'static str, staple: Option<&'static str>| PairParts {
                chain: chain.as_bytes(),
                key: key.as_bytes(),
                staple: staple.map(str::as_bytes),
            };
        let ca = |roots: &'static str, list: &'static str| CaParts {
            roots: roots.as_bytes(),
            revocation: Some(list.as_bytes()),
        };
        let both = contents(&[&generic[..], &tls].concat());
        assert_eq!(both.pair(), Ok(pair("C", "K", None)));
        assert_eq!(both.ca(), Ok(ca("A", "L")));
        let tls = contents(&tls);
        assert_eq!(tls.pair(), Ok(pair("c", "k", Some("s"))));
        assert_eq!(tls.ca(), Ok(ca("a", "l")));
    }

    #[test]
    fn a_layout_counts_only_when_it_is_complete() {
        // Half of one, and another that is whole.
        let mixed = contents(&[("cert", "C"), ("tls.crt", "c"), ("tls.key", "k")]);
        assert_eq!(mixed.pair().map(|pair| pair.chain), Ok(&b"c"[..]));
        let empty = contents(&[
            ("cert", "C"),
            ("key", ""),
            ("tls.crt", "c"),
            ("tls.key", "k"),
        ]);
        assert_eq!(empty.pair().map(|pair| pair.key), Ok(&b"k"[..]));
        // A list of the one layout does not go with the CA of the other.
        let crossed = contents(&[("ca.crt", "a"), ("crl", "L")]);
        assert_eq!(crossed.ca().map(|ca| ca.revocation), Ok(None));
    }

    #[test]
    fn what_is_missing_is_named_and_what_was_found() {
        let told = |data: &[(&str, &str)]| {
            let contents = contents(data);
            let [pair, ca] = [contents.pair().map(drop), contents.ca().map(drop)];
            [pair, ca].map(|outcome| outcome.unwrap_err().to_string())
        };
        assert_eq!(
            told(&[]),
            [
                "expected keys (cert and key) or (tls.crt and tls.key); found nothing",
                "expected keys (cacert) or (ca.crt); found nothing"
            ]
        );
        let many = told(&[("d", "x"), ("b", "x"), ("a", "x"), ("c", "x"), ("e", "x")]);
        assert!(many[0].ends_with("found a, b, c, and 2 more"), "{many:?}");
        let empty = told(&[("tls.crt", ""), ("tls.key", "k"), ("ca.crt", "")]);
        assert_eq!(
            empty,
            [
                "found keys \"tls.crt\" and \"tls.key\", but they were empty",
                "found keys \"ca.crt\", but they were empty"
            ]
        );
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?}", contents(&[("key", "SECRET"), ("other", "SECRET")]));
        assert!(shown.contains("other"));
        for inside in ["SECRET", "83, 69"] {
            assert!(!shown.contains(inside), "{shown}");
        }
    }

    proptest! {
        /// Whatever keys there are: a CA is never made of a key, and a pair is of one layout.
        #[test]
        fn layouts_are_never_mixed(
            data in proptest::collection::btree_map(
                proptest::sample::select([&KNOWN[..], &["other", "tls.crt "]].concat()),
                any::<bool>(),
                0..9,
            )
        ) {
            // Each part says which key it was under.
            let data: Vec<_> = data.iter().map(|(key, full)| (*key, if *full { *key } else { "" })).collect();
            let contents = contents(&data);
            if let Ok(PairParts { chain, key, staple }) = contents.pair() {
                let generic = (&b"cert"[..], &b"key"[..], None);
                let of_tls = chain == b"tls.crt" && key == b"tls.key" && staple.is_none_or(|staple| staple == b"tls.ocsp-staple");
                prop_assert!((chain, key, staple) == generic || of_tls);
            }
            if let Ok(CaParts { roots, revocation }) = contents.ca() {
                let generic = roots == b"cacert" && revocation.is_none_or(|list| list == b"crl");
                let of_tls = roots == b"ca.crt" && revocation.is_none_or(|list| list == b"ca.crl");
                prop_assert!(generic || of_tls);
            }
        }
    }
}
