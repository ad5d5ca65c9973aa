//! A client of the certificate service that is not an agent.

use ca_core::{CertificateChain, KeyKind, PrivateKey, SubjectName, TrustBundle, create_csr_pem};
use ca_proto::istio::v1::auth::IstioCertificateRequest;
use ca_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use tonic::transport::{
    Certificate as PemCertificate, Channel, ClientTlsConfig, Endpoint, Identity,
};
use tonic::{Request, Status};

use crate::running::{self, Running};

/// What a client gets: the chain in front, the roots in the last element.
pub(crate) struct Answer {
    pub(crate) elements: Vec<String>,
    pub(crate) chain: CertificateChain,
    pub(crate) roots: TrustBundle,
}

pub(crate) struct Client {
    pub(crate) channel: Channel,
    pub(crate) token: Option<String>,
}

impl Client {
    pub(crate) async fn connect(
        ca: &Running,
        identity: Option<Identity>,
        token: Option<String>,
    ) -> Self {
        Self::connect_with(ca, identity, token, |endpoint| endpoint).await
    }

    /// One with ways of its own.
    pub(crate) async fn connect_with(
        ca: &Running,
        identity: Option<Identity>,
        token: Option<String>,
        ways: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Self {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(PemCertificate::from_pem(ca.root_pem()))
            .domain_name("localhost");
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", ca.serving)).unwrap();
        let endpoint = endpoint
            .tls_config(tls)
            .unwrap()
            .timeout(running::DEADLINE)
            .connect_timeout(running::DEADLINE);
        Self {
            channel: ways(endpoint).connect().await.unwrap(),
            token,
        }
    }

    pub(crate) async fn ask(&self, csr: &str, seconds: i64) -> Result<Answer, Status> {
        self.send(IstioCertificateRequest {
            csr: csr.into(),
            validity_duration: seconds,
            metadata: None,
        })
        .await
    }

    pub(crate) async fn send(&self, message: IstioCertificateRequest) -> Result<Answer, Status> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let mut client = IstioCertificateServiceClient::new(self.channel.clone());
        let elements = client
            .create_certificate(request)
            .await?
            .into_inner()
            .cert_chain;
        let (roots, chain) = elements.split_last().unwrap();
        Ok(Answer {
            chain: CertificateChain::from_pem(chain.concat().as_bytes()).unwrap(),
            roots: TrustBundle::from_pem(roots.as_bytes()).unwrap(),
            elements,
        })
    }
}

pub(crate) fn key_and_csr(names: &[&str]) -> (PrivateKey, String) {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let names: Vec<SubjectName> = names.iter().map(|name| name.parse().unwrap()).collect();
    let csr = create_csr_pem(&key, &names).unwrap();
    (key, csr)
}
