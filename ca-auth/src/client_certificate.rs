//! Callers that already hold a certificate of the mesh: they renew it, or speak for a gateway.

use ca_core::{BoxFuture, TrustDomain};
use time::OffsetDateTime;

use crate::authenticator::{Authenticator, AuthnError};
use crate::caller::{Caller, Identities, Source};
use crate::evidence::Evidence;

/// Takes the SPIFFE IDs of a client certificate that TLS has verified.
///
/// Only IDs of workloads in our own trust domain count. Host names and addresses in a certificate are
/// not carried over: whoever got them once would keep them by renewing for ever.
#[derive(Clone, Debug)]
pub struct ClientCertificateAuthenticator {
    trust_domain: TrustDomain,
}

impl ClientCertificateAuthenticator {
    /// Accepts names in `trust_domain`.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self { trust_domain }
    }

    fn judge(&self, evidence: &Evidence, now: OffsetDateTime) -> Result<Caller, AuthnError> {
        let leaf = evidence
            .client_chain()
            .ok_or(AuthnError::NotPresented)?
            .leaf();
        // TLS looked at the dates when the connection was made, which may be days ago.
        if !leaf.is_valid_at(now) {
            let text = format!(
                "the certificate is valid from {} to {}",
                leaf.not_before(),
                leaf.not_after()
            );
            return Err(AuthnError::Rejected(text.into()));
        }
        let names = leaf
            .spiffe_ids()
            // The bare name of a trust domain names its authority, not a workload.
            .filter(|id| id.is_in(&self.trust_domain) && !id.path().is_empty())
            .cloned()
            .collect();
        let identities = Identities::new(names).ok_or_else(|| {
            let text = format!(
                "the certificate has no SPIFFE ID of a workload in {}",
                self.trust_domain
            );
            AuthnError::Rejected(text.into())
        })?;
        let source = Source::ClientCertificate {
            serial: leaf.serial(),
        };
        Ok(Caller::new(NAME, source, identities, leaf.not_after()))
    }
}

impl Authenticator for ClientCertificateAuthenticator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn authenticate<'a>(
        &'a self,
        evidence: &'a Evidence,
        now: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Caller, AuthnError>> {
        Box::pin(std::future::ready(self.judge(evidence, now)))
    }
}

const NAME: &str = "client-certificate";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ca_core::SubjectName;
    use ca_core::testing::{TestCa, now};

    use super::*;
    use crate::evidence::Transport;

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
    const GATE: &str = "spiffe://cluster.local/ns/shop/sa/gate";
    const HOUR: Duration = Duration::from_secs(3600);

    async fn judge(names: &[&str], at: OffsetDateTime) -> Result<Caller, AuthnError> {
        let ca = TestCa::new("cluster.local");
        let names: Vec<SubjectName> = names.iter().map(|name| name.parse().unwrap()).collect();
        let (_, chain) = ca.identity(&names, HOUR, now());
        let client_chain = Some(chain);
        let evidence = Evidence::new(Transport::Tls { client_chain });
        ClientCertificateAuthenticator::new("cluster.local".parse().unwrap())
            .authenticate(&evidence, at)
            .await
    }

    #[tokio::test]
    async fn only_workloads_of_our_trust_domain_are_carried_over() {
        let cases: &[(&[&str], &[&str])] = &[
            (&[CART], &[CART]),
            (&[GATE, CART], &[GATE, CART]),
            (
                &[
                    "cart.shop.svc",
                    CART,
                    "10.0.0.1",
                    "spiffe://other/ns/a/sa/b",
                ],
                &[CART],
            ),
            (
                &["spiffe://cluster.local/gateway/7"],
                &["spiffe://cluster.local/gateway/7"],
            ),
            (&["spiffe://cluster.local"], &[]),
            (&["spiffe://other/ns/shop/sa/cart"], &[]),
            (&["spiffe://cluster.local.evil/ns/shop/sa/cart"], &[]),
            (&["cart.shop.svc"], &[]),
            (&["10.0.0.1", "::1"], &[]),
        ];
        for (names, expected) in cases {
            match judge(names, now()).await {
                Ok(caller) => {
                    let found = caller.identities.as_slice().iter();
                    let found: Vec<&str> = found.map(ca_core::SpiffeId::as_str).collect();
                    assert_eq!(found, *expected, "{names:?}");
                    assert!(matches!(caller.source, Source::ClientCertificate { .. }));
                    assert_eq!((caller.pod, caller.service_account), (None, None));
                }
                Err(AuthnError::Rejected(reason)) => {
                    assert!(expected.is_empty(), "{names:?}: {reason}");
                }
                Err(other) => panic!("{names:?}: {other}"),
            }
        }
    }

    #[tokio::test]
    async fn a_connection_that_outlives_its_certificate_is_refused() {
        let now = now();
        let caller = judge(&[CART], now).await.unwrap();
        assert!(caller.expires >= now + HOUR);
        for (at, good) in [
            (now - HOUR, false),
            (now + HOUR / 2, true),
            (now + 2 * HOUR, false),
        ] {
            let verdict = judge(&[CART], at).await;
            match verdict {
                Ok(_) => assert!(good, "{at}"),
                Err(AuthnError::Rejected(reason)) => {
                    assert!(
                        !good && reason.to_string().contains("valid from"),
                        "{at}: {reason}"
                    );
                }
                Err(other) => panic!("{at}: {other}"),
            }
        }
    }

    #[tokio::test]
    async fn without_a_certificate_nothing_is_presented() {
        let authenticator = ClientCertificateAuthenticator::new("cluster.local".parse().unwrap());
        for transport in [Transport::Plaintext, Transport::Tls { client_chain: None }] {
            let evidence = Evidence::new(transport).with_authorization("Bearer token");
            let verdict = authenticator.authenticate(&evidence, now()).await;
            assert!(matches!(verdict, Err(AuthnError::NotPresented)));
        }
    }
}
