//! Callers that already hold a certificate of the mesh: they renew it, or speak for a gateway.

use std::time::Duration;

use ca_core::{BoxFuture, TrustDomain, format_duration};
use time::OffsetDateTime;

use crate::address_range::TrustedProxies;
use crate::authenticator::{Authenticator, AuthnError};
use crate::caller::{Caller, Identities, Source};
use crate::evidence::Evidence;

/// Takes the SPIFFE IDs of a client certificate that TLS has verified.
///
/// Only IDs of workloads in our own trust domain count. Host names and addresses in a certificate are
/// not carried over: whoever got them once would keep them by renewing for ever.
///
/// Without a limit, whoever holds a certificate renews it for ever, also when the account behind it is
/// gone. See [`with_max_age`](Self::with_max_age) for what can be done about that here.
#[derive(Clone, Debug)]
pub struct ClientCertificateAuthenticator {
    trust_domain: TrustDomain,
    max_age: Option<Duration>,
    proxies: TrustedProxies,
}

impl ClientCertificateAuthenticator {
    /// Accepts names in `trust_domain`.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            max_age: None,
            proxies: TrustedProxies::default(),
        }
    }

    /// Refuses certificates whose validity began longer ago than that. Their holders need a token again.
    ///
    /// What that achieves: a certificate that was copied, put aside and forgotten, from a backup or an
    /// image, is worth nothing after `max_age`, however long it is valid. A workload that was down for
    /// longer shows a token when it comes back. With a limit below the age at which agents renew (half of
    /// the lifetime, for those of Istio), every renewal needs a token.
    ///
    /// What it does not: each renewal gives a young certificate, so that somebody who renews often enough
    /// goes on for ever. A bound on the whole chain needs a memory of its beginning, and a server that keeps
    /// no record of what it issued has none. Deny the identity in the policy to end it.
    #[must_use]
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Does not take the certificate of a trusted proxy for that of the caller: a request which says that it
    /// was forwarded is judged by what it says, or by its token, and never gets the name of the proxy.
    #[must_use]
    pub fn with_trusted_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.proxies = proxies;
        self
    }

    fn judge(&self, evidence: &Evidence, now: OffsetDateTime) -> Result<Caller, AuthnError> {
        let leaf = evidence
            .client_chain()
            .ok_or(AuthnError::NotPresented)?
            .leaf();
        if !evidence.forwarded_certificates().is_empty() && self.proxies.sent(evidence) {
            let text = "the request is forwarded: the certificate is the proxy's";
            return Err(AuthnError::Rejected(text.into()));
        }
        // TLS looked at the dates when the connection was made, which may be days ago.
        if !leaf.is_valid_at(now) {
            let text = format!(
                "the certificate is valid from {} to {}",
                leaf.not_before(),
                leaf.not_after()
            );
            return Err(AuthnError::Rejected(text.into()));
        }
        match self.max_age {
            Some(max_age) if now - leaf.not_before() > max_age => {
                let text = format!(
                    "the certificate is valid since {}, and so too old to renew by itself (limit {})",
                    leaf.not_before(),
                    format_duration(max_age)
                );
                return Err(AuthnError::Rejected(text.into()));
            }
            _ => {}
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
    async fn a_certificate_older_than_the_limit_does_not_renew() {
        let ca = TestCa::new("cluster.local");
        let begin = now();
        let (_, chain) = ca.identity(&[CART.parse().unwrap()], 24 * HOUR, begin);
        let not_before = chain.leaf().not_before();
        let client_chain = Some(chain);
        let evidence = Evidence::new(Transport::Tls { client_chain });
        let limited = ClientCertificateAuthenticator::new("cluster.local".parse().unwrap())
            .with_max_age(12 * HOUR);
        for (age, good) in [(HOUR, true), (12 * HOUR, true), (13 * HOUR, false)] {
            match limited.authenticate(&evidence, not_before + age).await {
                Ok(_) => assert!(good, "{age:?}"),
                Err(AuthnError::Rejected(reason)) => {
                    assert!(
                        !good && reason.to_string().ends_with("(limit 12h0m0s)"),
                        "{reason}"
                    );
                }
                Err(other) => panic!("{age:?}: {other}"),
            }
        }
    }

    #[tokio::test]
    async fn a_forwarded_request_never_gets_the_name_of_the_proxy() {
        let ca = TestCa::new("cluster.local");
        let (_, chain) = ca.identity(&[GATE.parse().unwrap()], HOUR, now());
        let client_chain = Some(chain);
        let from = |address: &str| {
            Evidence::new(Transport::Tls {
                client_chain: client_chain.clone(),
            })
            .with_peer_address(address.parse().unwrap())
        };
        let authenticator = ClientCertificateAuthenticator::new("cluster.local".parse().unwrap())
            .with_trusted_proxies(TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]));
        for (evidence, good) in [
            // The gateway asks for itself.
            (from("10.0.0.1:1"), true),
            (
                from("10.0.0.1:1").with_forwarded_certificate("URI=x"),
                false,
            ),
            (from("10.0.0.1:1").with_forwarded_certificate("junk"), false),
            // A workload elsewhere cannot lose its name by a header that means nothing.
            (from("11.0.0.1:1").with_forwarded_certificate("URI=x"), true),
        ] {
            let verdict = authenticator.authenticate(&evidence, now()).await;
            assert_eq!(verdict.is_ok(), good, "{evidence:?}");
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
