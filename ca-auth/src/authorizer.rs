//! For which names a caller may ask.

use ca_core::{IdentityError, SpiffeId};

use crate::caller::{Caller, Identities};

/// Decides for which names a caller gets a certificate: its own, or one of its own.
///
/// This is the one place where names are granted. Node proxies, which ask on behalf of the pods on their
/// node, will be decided here too; then the authorizer holds what it knows of pods, and the call stays
/// as it is.
#[derive(Debug)]
pub struct Authorizer {
    /// Keeps construction here, for the knowledge that other rules will need.
    _rules: (),
}

impl Authorizer {
    /// Every caller gets its own names and no others.
    pub fn own_names() -> Self {
        Self { _rules: () }
    }

    /// Grants the caller's names; or, when it asks `on_behalf_of` one name, that name alone.
    ///
    /// An empty `on_behalf_of` is the same as none: that is how the wire says it.
    ///
    /// # Errors
    /// When the caller asks for a name that it does not hold.
    pub fn authorize(
        &self,
        caller: Caller,
        on_behalf_of: Option<&str>,
    ) -> Result<Grant, AuthzError> {
        let Some(wanted) = on_behalf_of.filter(|name| !name.is_empty()) else {
            let identities = caller.identities.clone();
            return Ok(Grant { caller, identities });
        };
        let wanted: SpiffeId = wanted.parse()?;
        if !caller.identities.as_slice().contains(&wanted) {
            return Err(AuthzError::NotItsName {
                caller: Box::new(caller.identities),
                wanted,
            });
        }
        let identities = Identities::from(wanted);
        Ok(Grant { caller, identities })
    }
}

/// Permission to certify names. Only [`Authorizer::authorize`] makes one, so nothing is signed
/// without a decision:
///
/// ```compile_fail,E0451
/// fn forge(caller: ca_auth::Caller, identities: ca_auth::Identities) -> ca_auth::Grant {
///     ca_auth::Grant { caller, identities }
/// }
/// ```
#[derive(Debug)]
pub struct Grant {
    caller: Caller,
    identities: Identities,
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

    /// The names that may be certified, owned.
    pub fn into_identities(self) -> Vec<SpiffeId> {
        self.identities.into_vec()
    }
}

/// Why a caller does not get the names it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthzError {
    /// What it asks for is not a SPIFFE ID.
    #[error("asks on behalf of something that is no identity: {0}")]
    NotAnIdentity(#[from] IdentityError),
    /// It asks for a name that is not among its own.
    #[error("{} asks on behalf of {wanted}", names(caller))]
    NotItsName {
        /// The caller's own names.
        caller: Box<Identities>,
        /// The name it asks for.
        wanted: SpiffeId,
    },
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
