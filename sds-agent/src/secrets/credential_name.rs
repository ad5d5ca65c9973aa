//! What gateways call the certificates that they show: names of Kubernetes Secrets.

use std::{fmt, sync::Arc};

use super::SecretName;

/// A name that means a Secret of a cluster. Names that are written differently are different names, also
/// where they mean the same Secret: each is answered as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CredentialName {
    scheme: Scheme,
    /// None: the agent's own.
    namespace: Option<Arc<str>>,
    /// With the ending that says that a CA is meant.
    secret: Arc<str>,
}

/// How a name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scheme {
    /// `name`: what stands in the configuration of a gateway.
    Bare,
    /// `kubernetes://name` or `kubernetes://namespace/name`.
    Kubernetes,
    /// `kubernetes-gateway://namespace/name`: the Gateway API's.
    GatewayApi,
}

impl CredentialName {
    /// What is meant by `name`, if it can be the name of a Secret.
    pub(super) fn read(name: &str) -> Option<SecretName> {
        let schemes = [Scheme::Kubernetes, Scheme::GatewayApi];
        let found = schemes
            .into_iter()
            .find_map(|scheme| Some((scheme, name.strip_prefix(scheme.prefix())?)));
        let (scheme, path) = found.unwrap_or((Scheme::Bare, name));
        let (namespace, secret) = match path.split_once('/') {
            Some((namespace, secret)) if scheme != Scheme::Bare => (Some(namespace), secret),
            None if scheme != Scheme::GatewayApi => (None, path),
            _ => return None,
        };
        if !is_name(secret, LONGEST_NAME, true)
            || namespace.is_some_and(|namespace| !is_name(namespace, LONGEST_LABEL, false))
        {
            return None;
        }
        let is_ca = secret.ends_with(CA_ENDING);
        let name = Self {
            scheme,
            namespace: namespace.map(Arc::from),
            secret: secret.into(),
        };
        Some(if is_ca {
            SecretName::CredentialRoots(name)
        } else {
            SecretName::Credential(name)
        })
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The namespace, where it is named.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The Secret of exactly this name.
    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// The Secret that holds the key pair, where this is the name of a CA.
    pub(crate) fn secret_of_pair(&self) -> Option<&str> {
        self.secret.strip_suffix(CA_ENDING)
    }
}

impl Scheme {
    fn prefix(self) -> &'static str {
        match self {
            Self::Bare => "",
            Self::Kubernetes => "kubernetes://",
            Self::GatewayApi => "kubernetes-gateway://",
        }
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme.prefix())?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.secret)
    }
}

/// The name of a CA ends so.
const CA_ENDING: &str = "-cacert";

/// RFC 1123, as Kubernetes has it for the names of Secrets.
const LONGEST_NAME: usize = 253;
/// The same for one label, which a namespace is.
const LONGEST_LABEL: usize = 63;

fn is_name(text: &str, longest: usize, dots: bool) -> bool {
    let inner = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || (dots && byte == b'.')
    };
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= longest
        && bytes.iter().copied().all(inner)
        && outer(bytes.first())
        && outer(bytes.last())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secrets::{Catalogue, UnknownName};

    const GATEWAY: Catalogue = Catalogue { credentials: true };

    #[test]
    fn names_of_credentials_are_read_and_written_alike() {
        for (text, namespace, secret, is_ca) in [
            ("shop-tls", None, "shop-tls", false),
            ("shop.example.com", None, "shop.example.com", false),
            ("shop-tls-cacert", None, "shop-tls-cacert", true),
            ("kubernetes://shop-tls", None, "shop-tls", false),
            (
                "kubernetes://edge/shop-tls",
                Some("edge"),
                "shop-tls",
                false,
            ),
            ("kubernetes://edge/a-cacert", Some("edge"), "a-cacert", true),
            ("kubernetes-gateway://shop/tls", Some("shop"), "tls", false),
            (
                "kubernetes-gateway://shop/tls-cacert",
                Some("shop"),
                "tls-cacert",
                true,
            ),
        ] {
            let read = GATEWAY.read(text).unwrap();
            assert_eq!(read.to_string(), text);
            assert!(!read.is_of_the_workload() && !read.takes_revocation_lists());
            let (SecretName::Credential(name) | SecretName::CredentialRoots(name)) = &read else {
                panic!("{read:?}");
            };
            assert_eq!((name.namespace(), name.secret()), (namespace, secret));
            assert_eq!(matches!(read, SecretName::CredentialRoots(_)), is_ca);
            assert_eq!(name.secret_of_pair().is_some(), is_ca);
            // A build that can does so only where it is told to.
            assert_eq!(
                Catalogue::default().read(text),
                Err(UnknownName(text.to_owned()))
            );
        }
    }

    #[test]
    fn the_workloads_names_stay_the_workloads() {
        for text in ["default", "ROOTCA", "file-root:system"] {
            assert_eq!(GATEWAY.read(text), text.parse());
        }
    }

    #[test]
    fn what_no_secret_can_be_called_is_refused_by_name() {
        let long = "x".repeat(LONGEST_NAME + 1);
        for text in [
            "",
            "Shop",
            "shop_tls",
            "-shop",
            "shop-",
            "edge/shop",
            "kubernetes://",
            "kubernetes:///a",
            "kubernetes://a/",
            "kubernetes://a/b/c",
            "kubernetes://a.b/c",
            "kubernetes-gateway://a",
            "kubernetes-gateway:///a",
            "configmap://a/b",
            "builtin://",
            "invalid://a",
            "sds://a",
            "file-root:",
            &long,
        ] {
            assert_eq!(GATEWAY.read(text), Err(UnknownName(text.to_owned())));
        }
    }

    #[test]
    fn a_ca_comes_before_the_pairs_of_a_gateway() {
        let mut names =
            ["b", "default", "b-cacert", "ROOTCA"].map(|name| GATEWAY.read(name).unwrap());
        names.sort();
        let names = names.map(|name| name.to_string());
        assert_eq!(names, ["ROOTCA", "b-cacert", "default", "b"]);
    }

    proptest! {
        /// Whatever a client asks for is refused or written as it was read.
        #[test]
        fn no_name_is_taken_for_another(
            scheme in prop_oneof![Just(""), Just("kubernetes://"), Just("kubernetes-gateway://"), Just("kubernetes:/")],
            rest in "[a-zA-Z0-9./~:-]{0,80}",
        ) {
            let text = format!("{scheme}{rest}");
            if let Ok(name) = GATEWAY.read(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
