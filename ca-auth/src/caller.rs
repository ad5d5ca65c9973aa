//! Who is calling, as far as the evidence proves it.

use std::net::IpAddr;
use std::sync::Arc;

use ca_core::{IdentityError, SpiffeId, TrustDomain};
use time::OffsetDateTime;

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// Name of the authenticator that vouches for the caller.
    pub authenticator: &'static str,
    /// What the caller showed.
    pub source: Source,
    /// The names the caller proved to be its own.
    pub identities: Identities,
    /// The Kubernetes service account, if the evidence names one.
    pub service_account: Option<ServiceAccount>,
    /// The pod the evidence is bound to, if any. Only such a caller can ever be a node proxy.
    pub pod: Option<Pod>,
    /// The Kubernetes cluster that vouches for the caller, if one does.
    pub cluster: Option<Arc<str>>,
    /// When the evidence ends.
    pub expires: OffsetDateTime,
}

impl Caller {
    /// A caller that is known by its names alone.
    pub fn new(
        authenticator: &'static str,
        source: Source,
        identities: Identities,
        expires: OffsetDateTime,
    ) -> Self {
        Self {
            authenticator,
            source,
            identities,
            service_account: None,
            pod: None,
            cluster: None,
            expires,
        }
    }
}

/// What a caller showed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A certificate of the mesh, verified by TLS.
    ClientCertificate {
        /// Its serial number, to find it in the record of what was issued.
        serial: String,
    },
    /// A signed token.
    Token {
        /// Its `iss` claim.
        issuer: Option<String>,
    },
    /// A certificate of the mesh that a trusted proxy has verified.
    ForwardedCertificate {
        /// Where the proxy is.
        proxy: Option<IpAddr>,
    },
}

/// SPIFFE names, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identities(Vec<SpiffeId>);

impl Identities {
    /// The names in this order, or `None` without a name.
    pub fn new(names: Vec<SpiffeId>) -> Option<Self> {
        (!names.is_empty()).then_some(Self(names))
    }

    /// The names.
    pub fn as_slice(&self) -> &[SpiffeId] {
        &self.0
    }

    /// The names, owned.
    pub fn into_vec(self) -> Vec<SpiffeId> {
        self.0
    }
}

impl From<SpiffeId> for Identities {
    fn from(name: SpiffeId) -> Self {
        Self(vec![name])
    }
}

/// A Kubernetes service account whose parts fit into a SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    namespace: Box<str>,
    name: Box<str>,
}

impl ServiceAccount {
    /// The service account `name` in `namespace`.
    ///
    /// # Errors
    /// When a part is empty or cannot be a segment of a SPIFFE path.
    pub fn new(namespace: &str, name: &str) -> Result<Self, IdentityError> {
        // Whether the parts fit does not depend on the trust domain, and one place decides it.
        SpiffeId::workload(&"any".parse()?, namespace, name)?;
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// The account a Kubernetes user name speaks of: `system:serviceaccount:<namespace>:<name>`.
    ///
    /// # Errors
    /// When the text has another form, or as [`ServiceAccount::new`].
    pub fn from_user_name(text: &str) -> Result<Self, SubjectError> {
        let mut parts = text.split(':');
        let mut next = || parts.next();
        let (Some("system"), Some("serviceaccount"), Some(namespace), Some(name), None) =
            (next(), next(), next(), next(), next())
        else {
            return Err(SubjectError::Form);
        };
        Ok(Self::new(namespace, name)?)
    }

    /// The Kubernetes user name of this account.
    pub fn user_name(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// The SPIFFE ID of this account in a mesh.
    ///
    /// # Errors
    /// When the whole ID is longer than SPIFFE allows.
    pub fn identity(&self, trust_domain: &TrustDomain) -> Result<SpiffeId, IdentityError> {
        SpiffeId::workload(trust_domain, &self.namespace, &self.name)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Why a text is not the user name of a service account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubjectError {
    /// Not four parts that start with the two fixed ones.
    #[error("not of the form system:serviceaccount:<namespace>:<service account>")]
    Form,
    /// A part cannot stand in a SPIFFE ID.
    #[error(transparent)]
    Part(#[from] IdentityError),
}

/// A pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The name within the namespace of the service account.
    pub name: String,
    /// The UID: a pod of the same name created later has another one.
    pub uid: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_has_exactly_four_parts_that_fit_into_a_spiffe_id() {
        let good = ServiceAccount::from_user_name("system:serviceaccount:shop:cart").unwrap();
        assert_eq!((good.namespace(), good.name()), ("shop", "cart"));
        assert_eq!(good.user_name(), "system:serviceaccount:shop:cart");
        assert_eq!(
            good.identity(&"td".parse().unwrap()).unwrap().as_str(),
            "spiffe://td/ns/shop/sa/cart"
        );

        for bad in [
            "",
            ":",
            ":::",
            "::::",
            "alice",
            "system",
            "system:serviceaccount",
            "system:serviceaccount:shop",
            "system:serviceaccount:shop:cart:more",
            "system:serviceaccount:shop:cart:",
            "system:serviceaccount:shop:",
            "system:serviceaccount::cart",
            "system:serviceaccounts:shop:cart",
            "System:serviceaccount:shop:cart",
            " system:serviceaccount:shop:cart",
            "system:serviceaccount:shop:cart ",
            "system:serviceaccount:shop/sa/admin:cart",
            "system:serviceaccount:shop:cart/../admin",
            "system:serviceaccount:..:cart",
            "system:serviceaccount:.:cart",
            "system:serviceaccount:shöp:cart",
            "system:serviceaccount:shop:c\u{0430}rt",
            "system:serviceaccount:shop:cart\0",
            "system:serviceaccount:shop:cart,spiffe",
            "system:serviceaccount:shop:%63art",
        ] {
            assert!(
                ServiceAccount::from_user_name(bad).is_err(),
                "{bad:?} was accepted"
            );
        }
    }
}
