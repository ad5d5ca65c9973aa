//! Patterns for SPIFFE IDs, as a policy writes them.

use std::fmt;

use ca_core::{IdentityError, SpiffeId, TrustDomain};

/// Some of all SPIFFE IDs.
///
/// | pattern | matches |
/// |---|---|
/// | `/ns/shop/sa/cart` | that one, in the trust domain of the mesh |
/// | `spiffe://example.com/ns/shop/sa/cart` | that one, in another trust domain |
/// | `/ns/shop/sa/*` | any service account of a namespace: `*` is one segment |
/// | `/ns/*/sa/job-*` | a star is also any part of a segment, once in each |
/// | `/ns/shop/**` | whatever is below: one segment or more, only at the end |
/// | `**` | every workload of the mesh |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityPattern {
    trust_domain: Box<str>,
    segments: Box<[Segment]>,
    /// Whether one segment or more may follow.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Exactly(Box<str>),
    Around { before: Box<str>, after: Box<str> },
}

impl IdentityPattern {
    /// Reads a pattern of a mesh.
    ///
    /// # Errors
    /// When the text is none of the above.
    pub fn parse(text: &str, mesh: &TrustDomain) -> Result<Self, PatternError> {
        let (trust_domain, path) = match text.strip_prefix("spiffe://") {
            Some(rest) => {
                let (domain, path) = rest.split_once('/').ok_or(PatternError::NoPath)?;
                let domain: TrustDomain = domain.parse()?;
                (domain.as_str().into(), path)
            }
            None if text == REST => (mesh.as_str().into(), REST),
            None => {
                let path = text.strip_prefix('/').ok_or(PatternError::Start)?;
                (mesh.as_str().into(), path)
            }
        };
        let (path, open) = match path.strip_suffix(REST) {
            None => (Some(path), false),
            Some("") => (None, true),
            Some(path) => (
                Some(path.strip_suffix('/').ok_or(PatternError::Rest)?),
                true,
            ),
        };
        let segments = path.map(|path| path.split('/').map(segment).collect());
        Ok(Self {
            trust_domain,
            segments: segments.unwrap_or(Ok(Box::default()))?,
            open,
        })
    }

    /// Every service account of a namespace.
    ///
    /// # Errors
    /// When there cannot be such a namespace.
    pub fn namespace(name: &str, mesh: &TrustDomain) -> Result<Self, PatternError> {
        // Decided by the one place that knows; a star here would be a pattern after all.
        SpiffeId::workload(mesh, name, "any")?;
        Self::parse(&format!("/ns/{name}/sa/*"), mesh)
    }

    /// Whether all that it matches lies in this trust domain.
    pub fn is_in(&self, trust_domain: &TrustDomain) -> bool {
        &*self.trust_domain == trust_domain.as_str()
    }

    /// Whether an ID is one of these.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        if id.trust_domain() != &*self.trust_domain {
            return false;
        }
        let Some(path) = id.path().strip_prefix('/') else {
            // The bare name of a trust domain is no workload.
            return false;
        };
        let mut parts = path.split('/');
        let all_match = self
            .segments
            .iter()
            .all(|segment| parts.next().is_some_and(|part| segment.matches(part)));
        all_match && parts.next().is_some() == self.open
    }
}

fn segment(text: &str) -> Result<Segment, PatternError> {
    let literal = |text: &str| {
        // Between harmless letters, because a part of a segment may be empty or a dot.
        format!("spiffe://any/x{text}x").parse::<SpiffeId>()?;
        Ok::<Box<str>, PatternError>(text.into())
    };
    match text.split_once('*') {
        None if text.contains('/') => Err(PatternError::Rest),
        None => {
            format!("spiffe://any/{text}").parse::<SpiffeId>()?;
            Ok(Segment::Exactly(text.into()))
        }
        Some((_, after)) if after.contains('*') => Err(PatternError::TwoStars),
        Some((before, after)) => Ok(Segment::Around {
            before: literal(before)?,
            after: literal(after)?,
        }),
    }
}

impl Segment {
    fn matches(&self, part: &str) -> bool {
        match self {
            Self::Exactly(text) => part == &**text,
            Self::Around { before, after } => part
                .strip_prefix(&**before)
                .is_some_and(|rest| rest.ends_with(&**after)),
        }
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.trust_domain)?;
        for segment in &self.segments {
            match segment {
                Segment::Exactly(text) => write!(f, "/{text}")?,
                Segment::Around { before, after } => write!(f, "/{before}*{after}")?,
            }
        }
        if self.open {
            f.write_str("/**")
        } else {
            Ok(())
        }
    }
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Neither a path nor a whole ID.
    #[error("a pattern starts with / or spiffe://, or is **")]
    Start,
    /// A trust domain alone.
    #[error("a trust domain without a path is no workload")]
    NoPath,
    /// Two stars where they are not the last segment.
    #[error("** is the last segment of a pattern, alone")]
    Rest,
    /// More than one star in a segment.
    #[error("a segment has at most one *, and ** is the last one, alone")]
    TwoStars,
    /// What is not a star cannot be part of an ID.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

const REST: &str = "**";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Result<IdentityPattern, PatternError> {
        IdentityPattern::parse(text, &"mesh".parse().unwrap())
    }

    #[test]
    fn a_pattern_matches_whole_segments_of_the_right_trust_domain() {
        for (text, inside, outside) in [
            (
                "/ns/shop/sa/cart",
                &["spiffe://mesh/ns/shop/sa/cart"][..],
                &[
                    "spiffe://mesh/ns/shop/sa/cart2",
                    "spiffe://mesh/ns/shop/sa",
                    "spiffe://mesh/ns/shop/sa/cart/x",
                    "spiffe://mesh2/ns/shop/sa/cart",
                    "spiffe://mesh",
                ][..],
            ),
            (
                "/ns/shop/sa/*",
                &[
                    "spiffe://mesh/ns/shop/sa/cart",
                    "spiffe://mesh/ns/shop/sa/x",
                ],
                &[
                    "spiffe://mesh/ns/shop/sa/a/b",
                    "spiffe://mesh/ns/shop2/sa/a",
                ],
            ),
            (
                "/ns/*/sa/job-*",
                &["spiffe://mesh/ns/a/sa/job-1", "spiffe://mesh/ns/b/sa/job-"],
                &["spiffe://mesh/ns/a/sa/job", "spiffe://mesh/ns/a/b/sa/job-1"],
            ),
            (
                "/a*a",
                &["spiffe://mesh/aa", "spiffe://mesh/aba"],
                &["spiffe://mesh/a", "spiffe://mesh/ab"],
            ),
            (
                "/ns/shop/**",
                &["spiffe://mesh/ns/shop/sa", "spiffe://mesh/ns/shop/sa/a/b/c"],
                &["spiffe://mesh/ns/shop", "spiffe://mesh/ns/shopping/sa/a"],
            ),
            (
                "**",
                &["spiffe://mesh/x", "spiffe://mesh/ns/a/sa/b"],
                &["spiffe://mesh", "spiffe://other/x"],
            ),
            (
                "spiffe://other/**",
                &["spiffe://other/x"],
                &["spiffe://other", "spiffe://mesh/x"],
            ),
        ] {
            let pattern = pattern(text).unwrap();
            for id in inside {
                assert!(pattern.matches(&id.parse().unwrap()), "{text} and {id}");
            }
            for id in outside {
                assert!(!pattern.matches(&id.parse().unwrap()), "{text} and {id}");
            }
        }
    }

    #[test]
    fn what_could_be_meant_otherwise_is_no_pattern() {
        for bad in [
            "",
            "*",
            "cart",
            "ns/shop",
            "/",
            "//",
            "/ns//x",
            "/ns/",
            "/**/x",
            "/ns/a**",
            "/a*b*c",
            "/ns/***",
            "/../x",
            "/a b",
            "/a{b}",
            "/a%2fb",
            "spiffe://mesh",
            "spiffe:///x",
            "spiffe://*/x",
            "SPIFFE://mesh/x",
            "/ns/sh\u{f6}p",
            "/***",
        ] {
            assert!(pattern(bad).is_err(), "{bad:?}: {:?}", pattern(bad));
        }
        let mesh = "mesh".parse().unwrap();
        for bad in ["", "*", "a/b", "a*", "**"] {
            assert!(IdentityPattern::namespace(bad, &mesh).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_without_a_star_matches_itself_alone(a in "(/[a-c.]{1,3}){1,3}", b in "(/[a-c.]{1,3}){1,3}") {
            let id = |path: &str| format!("spiffe://mesh{path}").parse::<SpiffeId>();
            if let (Ok(pattern), Ok(other)) = (pattern(&a), id(&b)) {
                prop_assert_eq!(pattern.matches(&other), a == b);
                prop_assert_eq!(pattern.to_string(), format!("spiffe://mesh{a}"));
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in any::<String>(), near in "[/a*.]{0,12}") {
            for text in [text, near.clone(), format!("spiffe://mesh/{near}")] {
                if let Ok(pattern) = pattern(&text) {
                    prop_assert_eq!(&IdentityPattern::parse(&pattern.to_string(), &"x".parse().unwrap()).unwrap(), &pattern);
                }
            }
        }
    }
}
