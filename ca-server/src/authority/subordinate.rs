//! Certifying other CAs below this one, for those whom the policy lets be one.

use ca_auth::AuthorityGrant;
use ca_core::{
    CaRequest, Csr, IssuedChain, LocalAuthority, PublicKey, SignError, SpiffeId, TrustDomain,
};
use std::fmt::Write as _;
use std::time::Duration;
use time::OffsetDateTime;

use super::local::off_thread;

/// Our own bundle, as the issuer of CAs.
#[derive(Clone, Debug)]
pub(crate) struct SubordinateAuthorities {
    authority: LocalAuthority,
    trust_domain: TrustDomain,
}

impl SubordinateAuthorities {
    pub(crate) fn new(authority: LocalAuthority, trust_domain: TrustDomain) -> Self {
        Self {
            authority,
            trust_domain,
        }
    }

    /// Makes the key of `csr` a CA. Its name is what `grant` says of the caller, never what the CSR says.
    pub(crate) async fn certify(
        &self,
        csr: Csr,
        grant: &AuthorityGrant,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<IssuedChain, SignError> {
        let name = common_name(&grant.caller().identities.as_slice()[0], csr.public_key());
        let request = CaRequest::new(csr, self.trust_domain.as_str(), name, lifetime)
            .with_path_length(grant.max_path_length());
        let request = if grant.is_constrained() {
            request.permitting_only(self.trust_domain.clone())
        } else {
            request
        };
        off_thread(&self.authority, move |authority| {
            authority.issue_ca(&request, now)
        })
        .await
    }
}

/// Who it is, as far as there is room, and which key: a CA with a new key is another issuer, and two replicas with one
/// identity are two.
fn common_name(caller: &SpiffeId, key: &PublicKey) -> String {
    let mut name: String = caller
        .path()
        .trim_start_matches('/')
        .chars()
        .take(MAX_COMMON_NAME - 1 - 2 * KEY_BYTES)
        .collect();
    name.push(' ');
    name.push_str(&key_name(key));
    name
}

/// The first bytes of the key's identifier, in hexadecimal digits.
pub(crate) fn key_name(key: &PublicKey) -> String {
    let mut name = String::new();
    for byte in &key.key_identifier()[..KEY_BYTES] {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// RFC 5280, upper bounds. A path is ASCII, so characters are bytes.
const MAX_COMMON_NAME: usize = 64;
const KEY_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use ca_core::{KeyKind, PrivateKey, SigningKey as _};

    use super::*;

    #[test]
    fn the_name_of_a_ca_fits_and_differs_by_its_key() {
        let key = || PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let caller: SpiffeId = "spiffe://cluster.local/ns/mesh/sa/edge-ca".parse().unwrap();
        let (one, two) = (key(), key());
        let name = common_name(&caller, one.public_key());
        assert!(name.starts_with("ns/mesh/sa/edge-ca "), "{name}");
        assert_ne!(name, common_name(&caller, two.public_key()));
        let long = format!("spiffe://cluster.local/ns/{}/sa/x", "n".repeat(63));
        let name = common_name(&long.parse().unwrap(), one.public_key());
        assert_eq!(name.len(), MAX_COMMON_NAME);
    }
}
