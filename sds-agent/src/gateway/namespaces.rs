//! Which namespaces' Secrets a gateway may show.

use std::{collections::BTreeSet, sync::Arc};

use crate::secrets::{CredentialName, Scheme};

/// The gateway's own namespace, and those that it was given beside it.
///
/// As Istio has it: `kubernetes://` and bare names reach the gateway's own namespace and no other; what the Gateway API names
/// may be elsewhere, where somebody has granted that. Here the operator grants it, by flag and by role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Namespaces {
    own: Arc<str>,
    granted: BTreeSet<Arc<str>>,
}

impl Namespaces {
    pub(crate) fn new(own: &str, granted: impl IntoIterator<Item = String>) -> Self {
        let granted = granted.into_iter().map(Arc::from);
        Self {
            own: own.into(),
            granted: granted.filter(|other: &Arc<str>| **other != *own).collect(),
        }
    }

    /// Each of them once.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<str>> {
        [&self.own].into_iter().chain(&self.granted).map(Arc::clone)
    }

    /// The namespace that a name leads to.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub(super) fn of(&self, name: &CredentialName) -> Result<&Arc<str>, NotServed> {
        let wanted = name.namespace().unwrap_or(&self.own);
        if *wanted == *self.own {
            return Ok(&self.own);
        }
        match self.granted.get(wanted) {
            Some(granted) if name.scheme() == Scheme::GatewayApi => Ok(granted),
            Some(_) => Err(NotServed::Scheme(wanted.to_owned())),
            None => Err(NotServed::Namespace(wanted.to_owned())),
        }
    }
}

/// Why a name leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotServed {
    #[error("secrets of namespace {0} are not served to this gateway")]
    Namespace(String),
    #[error(
        "secrets of namespace {0} are served by the names of the Gateway API only, kubernetes-gateway://"
    )]
    Scheme(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::{Catalogue, SecretName};

    #[test]
    fn other_namespaces_are_reached_by_the_gateway_apis_names_where_granted() {
        let granted = ["shop", "edge"].map(str::to_owned);
        let namespaces = Namespaces::new("edge", granted);
        assert_eq!(namespaces.all().count(), 2);
        let of = |text: &str| {
            let catalogue = Catalogue { credentials: true };
            let Ok(SecretName::Credential(name)) = catalogue.read(text) else {
                panic!("{text}");
            };
            namespaces.of(&name).map(ToString::to_string)
        };
        for own in [
            "a",
            "kubernetes://a",
            "kubernetes://edge/a",
            "kubernetes-gateway://edge/a",
        ] {
            assert_eq!(of(own).as_deref(), Ok("edge"));
        }
        assert_eq!(of("kubernetes-gateway://shop/a").as_deref(), Ok("shop"));
        let scheme = NotServed::Scheme("shop".to_owned());
        assert_eq!(of("kubernetes://shop/a"), Err(scheme));
        let namespace = NotServed::Namespace("kube-system".to_owned());
        for other in [
            "kubernetes://kube-system/a",
            "kubernetes-gateway://kube-system/a",
        ] {
            assert_eq!(of(other), Err(namespace.clone()));
        }
    }
}
