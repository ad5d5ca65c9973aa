//! SPIFFE names, and the other names a certificate can carry: parse, compare, print.
//!
//! Limits are those of the SPIFFE-ID specification: a trust domain of at most 255 bytes of
//! lower-case letters, digits, `.`, `-`, `_`; path segments of letters, digits, `.`, `-`, `_`;
//! at most 2,048 bytes in all.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The name of a mesh: the authority part of every SPIFFE ID in it, such as `cluster.local`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// The name as text, without `spiffe://`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    /// Accepts `cluster.local` and, as Istio does, writes an `@` in the name as `.`.
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let text = text.replace('@', ".");
        check_trust_domain(&text)?;
        Ok(Self(text.into()))
    }
}

/// A SPIFFE ID: `spiffe://<trust domain>/<path>`.
///
/// ```
/// use ca_core::{SpiffeId, TrustDomain};
///
/// let mesh: TrustDomain = "cluster.local".parse()?;
/// let id = SpiffeId::workload(&mesh, "shop", "cart")?;
/// assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
/// assert_eq!(id.as_workload().map(|w| w.service_account), Some("cart"));
/// assert!("https://cluster.local/ns/shop/sa/cart".parse::<SpiffeId>().is_err());
/// # Ok::<(), ca_core::IdentityError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Box<str>,
    /// Where the path starts: the trust domain lies between the scheme and here.
    path: u16,
}

/// The parts of a SPIFFE ID of the form Kubernetes meshes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload<'a> {
    /// The Kubernetes namespace, after `/ns/`.
    pub namespace: &'a str,
    /// The Kubernetes service account, after `/sa/`.
    pub service_account: &'a str,
}

impl SpiffeId {
    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    ///
    /// # Errors
    /// When a part is empty or has a character that a path segment may not have.
    pub fn workload(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        for part in [namespace, service_account] {
            // Checked here as well: a slash inside a part would make another identity, not an error.
            check_segment(part)?;
        }
        format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain as text.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..usize::from(self.path)]
    }

    /// Whether this name lies in `trust_domain`.
    pub fn is_in(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain() == trust_domain.as_str()
    }

    /// The path with its leading slash; empty for the ID of a trust domain itself.
    pub fn path(&self) -> &str {
        &self.text[usize::from(self.path)..]
    }

    /// Namespace and service account, if the path is exactly `/ns/<namespace>/sa/<service account>`.
    pub fn as_workload(&self) -> Option<Workload<'_>> {
        let mut parts = self.path().strip_prefix("/ns/")?.split('/');
        let namespace = parts.next()?;
        let ("sa", service_account, None) = (parts.next()?, parts.next()?, parts.next()) else {
            return None;
        };
        Some(Workload {
            namespace,
            service_account,
        })
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if text.len() > MAX_ID_BYTES {
            return Err(IdentityError::TooLong {
                limit: MAX_ID_BYTES,
            });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdentityError::Scheme)?;
        let domain_end = rest.find('/').unwrap_or(rest.len());
        check_trust_domain(&rest[..domain_end])?;
        if let Some(path) = rest[domain_end..].strip_prefix('/') {
            path.split('/').try_for_each(check_segment)?;
        }
        // The limit above keeps the offset far inside 16 bits.
        let path =
            u16::try_from(SCHEME.len() + domain_end).map_err(|_| IdentityError::TooLong {
                limit: MAX_ID_BYTES,
            })?;
        Ok(Self {
            text: text.into(),
            path,
        })
    }
}

/// A host name as certificates carry it: ASCII labels, possibly with one leading `*.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(Box<str>);

impl DnsName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsName {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let labels = text.strip_prefix("*.").unwrap_or(text);
        let good = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() > MAX_DOMAIN_BYTES || !labels.split('.').all(good) {
            return Err(IdentityError::DnsName { name: text.into() });
        }
        Ok(Self(text.into()))
    }
}

/// One subject alternative name of a certificate that mesh-ca issues.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SubjectName {
    /// A workload, as a URI name.
    Spiffe(SpiffeId),
    /// A host, as a DNS name.
    Dns(DnsName),
    /// An address.
    Ip(IpAddr),
}

impl From<SpiffeId> for SubjectName {
    fn from(id: SpiffeId) -> Self {
        Self::Spiffe(id)
    }
}

impl FromStr for SubjectName {
    type Err = IdentityError;

    /// An address, a `spiffe://` URI, or a host name: the order in which Istio tells them apart.
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        if text.starts_with(SCHEME) {
            return text.parse().map(Self::Spiffe);
        }
        text.parse().map(Self::Dns)
    }
}

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Not a `spiffe://` URI.
    #[error("not a SPIFFE ID: it does not start with spiffe://")]
    Scheme,
    /// The trust domain is empty, too long, or has a forbidden character.
    #[error("not a trust domain: {name:?} (1 to 255 of a-z 0-9 . - _)")]
    TrustDomain {
        /// What was given.
        name: String,
    },
    /// A path segment is empty, `.` or `..`, or has a forbidden character.
    #[error(
        "not a SPIFFE path segment: {segment:?} (A-Z a-z 0-9 . - _, not empty, not dots alone)"
    )]
    Segment {
        /// What was given.
        segment: String,
    },
    /// Longer than the specification allows.
    #[error("SPIFFE ID longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// Not a host name.
    #[error("not a DNS name: {name:?}")]
    DnsName {
        /// What was given.
        name: String,
    },
}

fn check_trust_domain(name: &str) -> Result<(), IdentityError> {
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if (1..=MAX_DOMAIN_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(IdentityError::TrustDomain {
        name: excerpt(name),
    })
}

fn check_segment(segment: &str) -> Result<(), IdentityError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed) {
        return Ok(());
    }
    Err(IdentityError::Segment {
        segment: excerpt(segment),
    })
}

/// Errors travel into logs: a hostile name must not fill them.
fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

macro_rules! prints_as_text {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
prints_as_text!(TrustDomain, SpiffeId, DnsName);

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spiffe(id) => id.fmt(f),
            Self::Dns(name) => name.fmt(f),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

pub(crate) const SCHEME: &str = "spiffe://";
const MAX_ID_BYTES: usize = 2048;
const MAX_DOMAIN_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_workload_name_comes_apart_as_it_was_put_together() {
        let mesh: TrustDomain = "cluster.local".parse().unwrap();
        let id = SpiffeId::workload(&mesh, "shop", "cart").unwrap();
        assert_eq!(id.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(id.trust_domain(), "cluster.local");
        assert!(id.is_in(&mesh));
        let workload = id.as_workload().unwrap();
        assert_eq!(
            (workload.namespace, workload.service_account),
            ("shop", "cart")
        );
    }

    #[test]
    fn a_slash_in_a_part_is_refused_rather_than_read_as_another_identity() {
        let mesh: TrustDomain = "td".parse().unwrap();
        assert!(SpiffeId::workload(&mesh, "shop/sa/admin", "x").is_err());
        assert!(SpiffeId::workload(&mesh, "shop", "").is_err());
        assert!(SpiffeId::workload(&mesh, "..", "x").is_err());
    }

    #[test]
    fn the_at_sign_of_a_trust_domain_becomes_a_dot() {
        assert_eq!(
            "me@example.com".parse::<TrustDomain>().unwrap().as_str(),
            "me.example.com"
        );
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        for bad in [
            "",
            "spiffe:/td/x",
            "SPIFFE://td/x",
            "spiffe://",
            "spiffe:///ns/a/sa/b",
            "spiffe://TD/x",
            "spiffe://td/",
            "spiffe://td//x",
            "spiffe://td/./x",
            "spiffe://td/../x",
            "spiffe://td/a b",
            "spiffe://td/a?b",
            "spiffe://td/a#b",
            "spiffe://td/%41",
            "spiffe://u@td/x",
            "spiffe://td:1/x",
            "spiffe://td/a,spiffe://td/b",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad} was accepted");
        }
        let long = format!("spiffe://td/{}", "a".repeat(2048));
        assert_eq!(
            long.parse::<SpiffeId>(),
            Err(IdentityError::TooLong { limit: 2048 })
        );
    }

    #[test]
    fn only_the_exact_workload_form_is_a_workload() {
        for other in [
            "spiffe://td",
            "spiffe://td/ns/a",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/sa/a/ns/b",
        ] {
            assert_eq!(
                other.parse::<SpiffeId>().unwrap().as_workload(),
                None,
                "{other}"
            );
        }
    }

    #[test]
    fn names_of_each_kind_are_told_apart() {
        assert!(matches!("::1".parse(), Ok(SubjectName::Ip(_))));
        assert!(matches!(
            "spiffe://td/x".parse(),
            Ok(SubjectName::Spiffe(_))
        ));
        assert!(matches!("*.example.com".parse(), Ok(SubjectName::Dns(_))));
        assert!("https://example.com".parse::<SubjectName>().is_err());
        assert!("a..b".parse::<SubjectName>().is_err());
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(td in "[a-z0-9._-]{1,30}", path in "(/[A-Za-z0-9_-]{1,8}){0,5}") {
            let text = format!("spiffe://{td}{path}");
            let id: SpiffeId = text.parse().unwrap();
            prop_assert_eq!(id.as_str(), text.as_str());
            prop_assert_eq!(id.trust_domain(), td.as_str());
            prop_assert_eq!(id.path(), path.as_str());
        }

        #[test]
        fn any_text_is_judged_without_a_panic(text in "\\PC{0,80}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.as_str(), text.as_str());
            }
            let _ = text.parse::<SubjectName>();
        }
    }
}
