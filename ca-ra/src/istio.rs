//! Another Istio-compatible CA as the signer.

use std::sync::Arc;
use std::time::Duration;

use ca_core::{
    Backoff, BoxFuture, CertificateAuthority, Csr, IssuedChain, SignError, SigningRequest,
    random_unit,
};
use ca_proto::istio::v1::auth::IstioCertificateRequest;
use ca_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rustls::crypto::CryptoProvider;
use time::OffsetDateTime;
use tokio::time::Instant;
use tonic::Request;

use crate::returned::{accept_any_name, accept_authority};
use crate::screen::ScreenedRequest;

mod address;
mod connection;
mod credential;
mod error;

pub use address::{UpstreamAddress, UpstreamAddressError};
use connection::Connections;
pub use connection::{UpstreamConfig, UpstreamCredential};
pub use credential::TokenError;
pub use error::UpstreamError;

/// A client of `istio.v1.auth.IstioCertificateService`, over TLS.
///
/// Roots and client certificate are followed while it lives, a token is read at each use: none of them needs a restart.
/// One connection is kept and made anew when it breaks or when the files change. Each call has a deadline, within
/// which it is repeated where Istio's agents repeat it.
///
/// What comes back is released only as what was asked for: [`ScreenedRequest::accept`] for a workload,
/// [`accept_authority`](crate::accept_authority) for a CA.
///
/// ```no_run
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use ca_core::{CertificateAuthority, Csr, SigningRequest};
/// use ca_ra::{IstioUpstream, UpstreamConfig, UpstreamCredential};
///
/// # async fn example(
/// #     csr_pem: String, now: time::OffsetDateTime, provider: rustls::crypto::CryptoProvider,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let config = UpstreamConfig {
///     address: "istiod.istio-system.svc:15012".parse()?,
///     roots: "/var/run/secrets/istio/root-cert.pem".into(),
///     credential: UpstreamCredential::Token("/var/run/secrets/tokens/istio-token".into()),
/// };
/// let upstream = IstioUpstream::new(config, Arc::new(provider))?;
///
/// let csr = Csr::from_pem(csr_pem.as_bytes())?;
/// let name: ca_core::SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse()?;
/// let request = SigningRequest::new(csr, vec![name.into()], Duration::from_secs(3600));
/// let issued = upstream.sign(request, now).await?;
/// assert_eq!(issued.chain().leaf().spiffe_ids().count(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct IstioUpstream {
    connections: Connections,
    deadline: Duration,
}

/// What is asked for beside the certificate itself.
#[derive(Clone, Copy)]
enum Wish<'a> {
    /// By a registration authority: the caller's own name is not the one to be certified.
    Workload {
        name: &'a str,
        signer: Option<&'a str>,
    },
    Own,
    Authority,
}

impl IstioUpstream {
    /// How long a call may take where nothing else is said, connecting and repetitions included.
    pub const DEADLINE: Duration = Duration::from_secs(10);

    /// Reads the files and begins to follow them. Nothing is asked yet. `provider` is the cryptography of TLS.
    ///
    /// # Errors
    /// When the roots or the client certificate cannot be read now. A token may come later.
    pub fn new(
        config: UpstreamConfig,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, UpstreamError> {
        Ok(Self {
            connections: Connections::new(config, provider)?,
            deadline: Self::DEADLINE,
        })
    }

    /// Another deadline for each call.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Who is asked.
    pub fn address(&self) -> &UpstreamAddress {
        self.connections.address()
    }

    /// Asks for the certificate of a CA with the key of `csr`. **Only a mesh-ca knows this wish**, and only a policy
    /// there grants it; any other CA answers with an ordinary certificate, which is refused here.
    ///
    /// # Errors
    /// When nobody answers, the wish is not granted, or what comes back is not what was asked for.
    pub async fn certify_authority(
        &self,
        csr: &Csr,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<IssuedChain, UpstreamError> {
        let answer = self.ask(csr, lifetime, Wish::Authority).await?;
        let issued = accept_authority(
            csr.public_key(),
            Some(lifetime),
            answer.chain(),
            answer.roots(),
            now,
        )?;
        Ok(issued)
    }

    /// Asks for an ordinary certificate of whatever names the CA gives us: a look at how it signs now, and at the
    /// roots that it hands out. There is no other way to learn these over this protocol.
    ///
    /// # Errors
    /// When nobody answers, or what comes back does not lead to the roots that came with it.
    pub async fn look(
        &self,
        csr: &Csr,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<IssuedChain, UpstreamError> {
        let answer = self.ask(csr, lifetime, Wish::Own).await?;
        Ok(accept_any_name(
            csr.public_key(),
            answer.chain(),
            answer.roots(),
            now,
        )?)
    }

    /// One call: as many tries as Istio's agent makes, within the deadline.
    async fn ask(
        &self,
        csr: &Csr,
        lifetime: Duration,
        wish: Wish<'_>,
    ) -> Result<IssuedChain, UpstreamError> {
        let end = Instant::now() + self.deadline;
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut tries = 1;
        loop {
            let asked = tokio::time::timeout_at(end, self.try_once(csr, lifetime, wish, end));
            let error = match asked.await {
                Ok(Ok(elements)) => return Ok(IssuedChain::from_elements(&elements)?),
                Ok(Err(error)) => error,
                Err(_) => {
                    // A peer that has gone silent would cost the next call its deadline too.
                    self.connections.forget();
                    return Err(UpstreamError::TimedOut {
                        address: self.address().to_string(),
                        limit: self.deadline,
                    });
                }
            };
            let wait = error.wait_asked_for();
            let wait = wait.unwrap_or_else(|| backoff.next(random_unit()));
            let again = Instant::now() + wait;
            // Who waits beyond the deadline learns nothing more than what is known already.
            if !error.is_retryable() || tries == MOST_TRIES || again >= end {
                return Err(error);
            }
            tokio::time::sleep_until(again).await;
            tries += 1;
        }
    }

    async fn try_once(
        &self,
        csr: &Csr,
        lifetime: Duration,
        wish: Wish<'_>,
        end: Instant,
    ) -> Result<Vec<String>, UpstreamError> {
        let mut request = Request::new(IstioCertificateRequest {
            csr: csr.to_pem(),
            validity_duration: i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX),
            metadata: metadata(wish),
        });
        // It learns how long we will wait, and need not work for an answer nobody reads.
        request.set_timeout(end.saturating_duration_since(Instant::now()));
        if let Some(bearer) = self.connections.bearer()? {
            request.metadata_mut().insert("authorization", bearer);
        }
        let channel = self.connections.channel();
        let mut client =
            IstioCertificateServiceClient::with_origin(channel, self.connections.origin());
        let reply = client.create_certificate(request).await;
        let reply = reply.map_err(|status| UpstreamError::of(self.address(), &status))?;
        Ok(reply.into_inner().cert_chain)
    }
}

impl CertificateAuthority for IstioUpstream {
    /// Sends the CSR of `request` on, if it asks for exactly the one name that was granted. To the CA it is a wish to act for
    /// that name (`ImpersonatedIdentity`), **which its policy must allow us**.
    fn sign(
        &self,
        request: SigningRequest,
        now: OffsetDateTime,
    ) -> BoxFuture<'_, Result<IssuedChain, SignError>> {
        Box::pin(async move {
            let screened = ScreenedRequest::screen(request)?;
            let signer = screened.request().signer();
            let lifetime = screened.request().lifetime();
            let name = screened.name().as_str();
            let wish = Wish::Workload { name, signer };
            let answer = self.ask(screened.csr(), lifetime, wish).await?;
            Ok(screened.accept(answer.chain(), answer.roots(), now)?)
        })
    }
}

fn metadata(wish: Wish<'_>) -> Option<Struct> {
    let text = |text: &str| Kind::StringValue(text.to_owned());
    let fields: Vec<_> = match wish {
        Wish::Own => return None,
        Wish::Workload { name, signer } => {
            let name = Some((IMPERSONATED, text(name)));
            let signer = signer.map(|signer| ("CertSigner", text(signer)));
            name.into_iter().chain(signer).collect()
        }
        Wish::Authority => vec![("CertificateAuthority", Kind::BoolValue(true))],
    };
    let fields = fields.into_iter().map(|(key, kind)| {
        let value = Value { kind: Some(kind) };
        (key.to_owned(), value)
    });
    Some(Struct {
        fields: fields.collect(),
    })
}

const IMPERSONATED: &str = "ImpersonatedIdentity";
/// What Istio's agent does, before it waits in earnest.
const MOST_TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
