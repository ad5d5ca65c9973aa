//! The service of Istio's node agents up to 1.5, in terms of the one that replaced it.

use std::sync::Arc;

use ca_core::{Certificate, CertificateChain};
use ca_proto::istio::v1::auth::istio_ca_service_server::IstioCaService;
use ca_proto::istio::v1::auth::{CsrRequest, CsrResponse, IstioCertificateRequest};
use tonic::{Request, Response, Status};

use crate::metrics::Method;
use crate::service::Service;

/// `istio.v1.auth.IstioCAService`.
///
/// Callers show who they are as everybody else does; `node_agent_credential`, which Istio's last servers of this kind
/// did not read either, is not looked at.
#[derive(Debug)]
pub(crate) struct NodeAgentService(Arc<Service>);

impl NodeAgentService {
    pub(crate) fn new(service: Arc<Service>) -> Self {
        Self(service)
    }
}

#[tonic::async_trait]
impl IstioCaService for NodeAgentService {
    async fn handle_csr(
        &self,
        request: Request<CsrRequest>,
    ) -> Result<Response<CsrResponse>, Status> {
        let issued = self
            .0
            .answer(Method::HANDLE_CSR, request.map(|old| translate(&old)))
            .await?;
        Ok(Response::new(response(issued.chain())))
    }
}

fn translate(old: &CsrRequest) -> IstioCertificateRequest {
    IstioCertificateRequest {
        // What is not text is no PEM, and will be refused as that.
        csr: String::from_utf8_lossy(&old.csr_pem).into_owned(),
        validity_duration: i64::from(old.requested_ttl_minutes) * 60,
        metadata: None,
    }
}

/// Without a root: node agents have theirs from elsewhere.
fn response(chain: &CertificateChain) -> CsrResponse {
    let between: String = chain
        .intermediates()
        .iter()
        .map(Certificate::to_pem)
        .collect();
    CsrResponse {
        is_approved: true,
        status: None,
        signed_cert: chain.leaf().to_pem().as_bytes().to_vec(),
        cert_chain: between.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_become_seconds_and_none_overflows() {
        for (minutes, seconds) in [(0, 0), (-5, -300), (60, 3600), (i32::MAX, 128_849_018_820)] {
            let old = CsrRequest {
                requested_ttl_minutes: minutes,
                ..CsrRequest::default()
            };
            assert_eq!(translate(&old).validity_duration, seconds);
        }
    }

    #[test]
    fn what_is_not_text_stays_something_to_refuse() {
        let old = CsrRequest {
            csr_pem: vec![0xff, b'x'],
            ..CsrRequest::default()
        };
        assert_eq!(translate(&old).csr, "\u{fffd}x");
    }
}
