//! One request, from top to bottom.

use std::sync::Arc;
use std::time::Instant;

use ca_auth::{Authenticators, Authorizer, Caller, Evidence};
use ca_core::crypto::AWS_LC_RS;
use ca_core::{
    Certificate, CertificateAuthority, Csr, IssuedChain, SigningRequest, SubjectName, TtlPolicy,
};
use ca_proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use ca_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use crate::evidence::{self, Wish};
use crate::metrics::Metrics;
use crate::status::IssueError;

/// `istio.v1.auth.IstioCertificateService`.
#[derive(Debug)]
pub struct Service {
    pub(crate) authenticators: Authenticators,
    pub(crate) authorizer: Authorizer,
    pub(crate) ttl: TtlPolicy,
    pub(crate) authority: Arc<dyn CertificateAuthority>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Service {
    /// Who is asked, in the order in which a refusal helps the caller most and costs us least: identity before the
    /// signature of the CSR, its own mistakes before ours.
    async fn issue(
        &self,
        evidence: &Evidence,
        wish: Wish,
        now: OffsetDateTime,
    ) -> Result<Issued, IssueError> {
        let caller = self.authenticators.authenticate(evidence, now).await?;
        let grant = self
            .authorizer
            .authorize(caller, wish.on_behalf_of.as_deref())?;
        let csr = Csr::from_pem_with(wish.csr_pem.as_bytes(), &AWS_LC_RS)?;
        let lifetime = self.ttl.resolve(wish.ttl)?;
        let caller = grant.caller().clone();
        let names = grant
            .into_identities()
            .into_iter()
            .map(SubjectName::from)
            .collect();
        let request = SigningRequest::new(csr, names, lifetime).with_signer(wish.signer);
        let chain = self.authority.sign(request, now).await?;
        Ok(Issued { caller, chain })
    }

    /// One outcome: one count, one line.
    fn record(&self, outcome: &Result<Issued, IssueError>, evidence: &Evidence, started: Instant) {
        let peer = evidence
            .peer_address()
            .map(|address| address.to_string())
            .unwrap_or_default();
        match outcome {
            Ok(issued) => {
                self.metrics.issued(started.elapsed());
                let leaf = issued.chain.chain().leaf();
                tracing::info!(
                    names = ?leaf.names(), serial = leaf.serial(), not_after = %leaf.not_after(),
                    caller = ?issued.caller.source, by = issued.caller.authenticator, peer, "issued"
                );
            }
            Err(error) => {
                self.metrics.refused(error.refused());
                tracing::warn!(peer, cluster = evidence.cluster(), "refused: {error}");
            }
        }
    }
}

/// A certificate and who gets it.
struct Issued {
    caller: Caller,
    chain: IssuedChain,
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    #[expect(clippy::disallowed_methods, reason = "an edge: a request happens now")]
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.metrics.csr_received();
        let started = Instant::now();
        let (evidence, wish) = evidence::read(request);
        let outcome = self.issue(&evidence, wish, OffsetDateTime::now_utc()).await;
        // Recorded before it is released: what is out is on the record.
        self.record(&outcome, &evidence, started);
        let issued = outcome.map_err(|error| error.to_status())?;
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: cert_chain(&issued.chain),
        }))
    }
}

/// One element for each certificate, leaf first; then all roots in one element, which clients take from the end.
fn cert_chain(issued: &IssuedChain) -> Vec<String> {
    let certificates = issued.chain().iter().map(Certificate::to_pem);
    certificates
        .chain([issued.roots().to_pem()])
        .map(str::to_owned)
        .collect()
}
