//! What a request shows for itself: plain data, put together by whoever speaks the wire.

use std::fmt;
use std::net::SocketAddr;

use ca_core::CertificateChain;
use zeroize::Zeroizing;

/// Everything an [`Authenticator`](crate::Authenticator) may look at.
///
/// ```
/// use ca_auth::{Evidence, Transport};
///
/// let evidence = Evidence::new(Transport::Tls { client_chain: None })
///     .with_peer_address("10.0.0.7:51442".parse()?)
///     .with_authorization("Bearer eyJhbGciOi...")
///     .with_cluster("eu-1");
/// assert!(evidence.bearer_token().is_some());
/// assert!(!format!("{evidence:?}").contains("eyJ"));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Evidence {
    transport: Transport,
    bearer_token: Option<BearerToken>,
    peer_address: Option<SocketAddr>,
    cluster: Option<String>,
    forwarded_certificates: Vec<String>,
}

/// How the request travelled. Only an encrypted connection can carry a client certificate.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Anybody on the way could read and change it.
    Plaintext,
    /// Encrypted to the server's certificate.
    Tls {
        /// The client's certificates, leaf first. **The TLS layer must have verified them against the
        /// roots of the mesh**: nobody repeats that here.
        client_chain: Option<CertificateChain>,
    },
}

impl Evidence {
    /// The least a request can show: the connection it came on.
    pub fn new(transport: Transport) -> Self {
        Self {
            transport,
            bearer_token: None,
            peer_address: None,
            cluster: None,
            forwarded_certificates: Vec::new(),
        }
    }

    /// Adds one value of the `authorization` header. To be called for every value in order: the first
    /// bearer token counts and all else is ignored, as Istio does.
    #[must_use]
    pub fn with_authorization(mut self, value: &str) -> Self {
        if self.bearer_token.is_none() {
            self.bearer_token = BearerToken::from_authorization(value);
        }
        self
    }

    /// Adds the address the connection came from.
    #[must_use]
    pub fn with_peer_address(mut self, address: SocketAddr) -> Self {
        self.peer_address = Some(address);
        self
    }

    /// Adds the cluster the caller says it is in. An empty name is no name.
    #[must_use]
    pub fn with_cluster(mut self, cluster: impl Into<String>) -> Self {
        self.cluster = Some(cluster.into()).filter(|name| !name.is_empty());
        self
    }

    /// Adds one value of the `x-forwarded-client-cert` header. To be called for every value: that there
    /// are several is evidence too.
    #[must_use]
    pub fn with_forwarded_certificate(mut self, value: impl Into<String>) -> Self {
        self.forwarded_certificates.push(value.into());
        self
    }

    /// How the request travelled.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The verified client certificate with its intermediates, if one was given.
    pub fn client_chain(&self) -> Option<&CertificateChain> {
        match &self.transport {
            Transport::Tls { client_chain } => client_chain.as_ref(),
            Transport::Plaintext => None,
        }
    }

    /// The first bearer token.
    pub fn bearer_token(&self) -> Option<&BearerToken> {
        self.bearer_token.as_ref()
    }

    /// Where the connection came from, if the transport has addresses.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peer_address
    }

    /// The cluster the caller says it is in: a claim, not a fact.
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// What the sender says of a client certificate it has seen: **anybody can say that**.
    pub fn forwarded_certificates(&self) -> &[String] {
        &self.forwarded_certificates
    }
}

/// A secret that whoever holds it may use. Never printed, wiped on drop.
#[derive(Clone)]
pub struct BearerToken(Zeroizing<String>);

impl BearerToken {
    /// The token itself, without a scheme in front.
    pub fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    /// The token in a header value `Bearer <token>`: this case and one space, as Istio reads it.
    pub fn from_authorization(value: &str) -> Option<Self> {
        value.strip_prefix("Bearer ").map(Self::new)
    }

    /// The secret. **Must not reach a log or a reply.**
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_bearer_scheme_is_read_and_the_first_token_counts() {
        let tls = || Evidence::new(Transport::Tls { client_chain: None });
        let cases: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&[""], None),
            (&["Basic dXNlcg=="], None),
            (&["bearer a"], None),
            (&["Bearer"], None),
            (&["Istio a"], None),
            (&["Bearer a"], Some("a")),
            (&["Bearer  a"], Some(" a")),
            (&["Basic dXNlcg==", "Bearer a"], Some("a")),
            (&["Bearer a", "Bearer b"], Some("a")),
        ];
        for (values, expected) in cases {
            let evidence = values
                .iter()
                .fold(tls(), |evidence, value| evidence.with_authorization(value));
            assert_eq!(
                evidence.bearer_token().map(BearerToken::secret),
                *expected,
                "{values:?}"
            );
        }
    }

    #[test]
    fn an_empty_cluster_is_no_cluster() {
        let evidence = Evidence::new(Transport::Plaintext);
        assert_eq!(evidence.clone().with_cluster("").cluster(), None);
        assert_eq!(evidence.with_cluster("eu-1").cluster(), Some("eu-1"));
    }
}
