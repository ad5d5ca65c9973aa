//! A client of `istio.v1.auth.IstioCertificateService`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ca_core::{BoxFuture, IssuedChain};
use ca_proto::istio::v1::auth::{
    IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
};
use prost_types::{Struct, Value, value::Kind};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
};
use zeroize::Zeroizing;

use super::{
    CaClient, CaError,
    connection::Connection,
    patience::{DEADLINE, in_time, with_quick_repetitions},
};
use crate::{
    clock,
    config::IstioCaConfig,
    credential::{ClientCertificate, ProvisionedFolder, Stamps, TokenError, TokenFile},
    metrics::Metrics,
};

/// Asks an Istio-compatible CA.
///
/// Each request has a connection of its own. Requests are half a certificate's life apart, often
/// twelve hours: a connection kept that long costs the CA memory for every workload of the mesh, and
/// tends to have died unnoticed in some middlebox, which costs the one request that matters its
/// deadline. It also makes each request see the current root file.
#[derive(Clone, Debug)]
pub(crate) struct IstioCaClient {
    config: IstioCaConfig,
    token: Option<TokenFile>,
    provisioned: Option<ProvisionedFolder>,
    metrics: Arc<Metrics>,
}

/// What is shown to the CA: at least one of the two.
struct Credentials {
    certificate: Option<ClientCertificate>,
    token: Option<Zeroizing<String>>,
}

impl IstioCaClient {
    pub(crate) fn new(config: IstioCaConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            token: config.token_file.as_deref().map(TokenFile::new),
            provisioned: config.provisioned.as_deref().map(ProvisionedFolder::new),
            config,
            metrics,
        }
    }

    /// Reads every file that a request will need, so that a wrong path is found at once.
    ///
    /// # Errors
    ///
    /// When the token or the roots cannot be read now. An old token is no error, and neither is a
    /// provisioned certificate that is still to come: somebody may be about to write them.
    pub(crate) fn check_files(&self) -> Result<(), CaError> {
        if self.provisioned.is_some() {
            return Ok(());
        }
        self.config.server.tls(None, b"h2")?;
        match self.credentials() {
            Err(CaError::Credential(TokenError::Expired(..))) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What there is to show. Read now: both may have been replaced.
    fn credentials(&self) -> Result<Credentials, CaError> {
        let now = clock::now();
        let certificate = self.provisioned.as_ref().and_then(|folder| {
            let refused = |error| tracing::warn!(%error, "no client certificate; using the token");
            folder.read(now).map_err(refused).ok()
        });
        let token = match self.token.as_ref().map(|token| token.read(now)) {
            None => None,
            Some(Ok(token)) => Some(token),
            Some(Err(error)) if certificate.is_some() => {
                tracing::info!(%error, "no token; using the client certificate");
                None
            }
            Some(Err(error)) => return Err(error.into()),
        };
        if certificate.is_none() && token.is_none() {
            return Err(CaError::NoCredential);
        }
        Ok(Credentials { certificate, token })
    }

    /// One try.
    async fn ask(&self, csr_pem: &str, lifetime: Duration) -> Result<Vec<String>, CaError> {
        let Credentials { certificate, token } = self.credentials()?;
        let request = self.request(csr_pem, lifetime, token.as_ref());
        let connection = Connection::open(&self.config.server, certificate).await?;
        let origin = self.config.server.address.origin().clone();
        let mut client = IstioCertificateServiceClient::with_origin(connection, origin);
        let response = client.create_certificate(request).await;
        Ok(response
            .map_err(|status| self.refused(&status))?
            .into_inner()
            .cert_chain)
    }

    fn request(
        &self,
        csr: &str,
        lifetime: Duration,
        token: Option<&Zeroizing<String>>,
    ) -> Request<IstioCertificateRequest> {
        let mut request = Request::new(IstioCertificateRequest {
            csr: csr.to_owned(),
            validity_duration: i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX),
            metadata: self.config.signer.as_deref().map(signer_metadata),
        });
        // The CA learns how long we will wait, and need not work for an answer nobody reads.
        request.set_timeout(DEADLINE);
        let metadata = request.metadata_mut();
        for (name, value) in &self.config.headers {
            metadata.insert(name.clone(), value.clone());
        }
        if let Some(token) = token {
            metadata.insert("authorization", bearer(token));
        }
        if let Ok(cluster) = MetadataValue::try_from(&self.config.cluster_id) {
            metadata.insert("clusterid", cluster);
        }
        request
    }

    fn refused(&self, status: &Status) -> CaError {
        CaError::Refused {
            address: self.config.server.address.to_string(),
            code: status.code(),
            message: status.message().to_owned(),
        }
    }
}

impl CaClient for IstioCaClient {
    fn sign(
        &self,
        csr_pem: String,
        lifetime: Duration,
    ) -> BoxFuture<'_, Result<IssuedChain, CaError>> {
        Box::pin(async move {
            let ask = || self.ask(&csr_pem, lifetime);
            let answer = with_quick_repetitions(&self.metrics, ask);
            let elements = in_time(&self.config.server.address, answer).await?;
            Ok(IssuedChain::from_elements(&elements)?)
        })
    }

    fn changes(&self) -> BoxFuture<'static, ()> {
        let config = &self.config;
        let mut files: Vec<_> = config.token_file.iter().cloned().collect();
        if let Some(folder) = &config.provisioned {
            files.extend(["cert-chain.pem", "key.pem"].map(|name| folder.join(name)));
        }
        files.extend(config.server.roots.file().cloned());
        Box::pin(Stamps::of(files).changed())
    }
}

fn bearer(token: &str) -> MetadataValue<Ascii> {
    let text = Zeroizing::new(format!("Bearer {token}"));
    #[expect(
        clippy::expect_used,
        reason = "a token is printable, as `TokenFile::read` promises"
    )]
    let mut value = MetadataValue::try_from(text.as_str()).expect("printable ASCII");
    // Keeps it out of `Debug` and out of HTTP/2's compression tables.
    value.set_sensitive(true);
    value
}

fn signer_metadata(signer: &str) -> Struct {
    let value = Value {
        kind: Some(Kind::StringValue(signer.to_owned())),
    };
    Struct {
        fields: BTreeMap::from([("CertSigner".to_owned(), value)]),
    }
}

#[cfg(test)]
mod tests {
    use ca_core::testing::TestCa;

    use super::*;
    use crate::{config::CaRoots, transport::Server};

    /// Time stands still while anybody has work to do, and jumps when everybody waits.
    #[tokio::test(start_paused = true)]
    async fn a_ca_that_says_nothing_costs_no_more_than_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = IstioCaConfig {
            server: Server {
                address: silent.local_addr().unwrap().to_string().parse().unwrap(),
                name: "127.0.0.1".try_into().unwrap(),
                roots: CaRoots::File(file("root", TestCa::new("cluster.local").roots().to_pem())),
            },
            token_file: Some(file("token", "token")),
            provisioned: None,
            cluster_id: String::new(),
            signer: None,
            headers: Vec::new(),
        };
        let client = IstioCaClient::new(config, Arc::new(Metrics::new()));
        let started = tokio::time::Instant::now();
        let error = client
            .sign(String::new(), Duration::from_secs(60))
            .await
            .unwrap_err();
        assert!(error.to_string().ends_with("within 10 s"), "{error}");
        assert_eq!(started.elapsed().as_secs(), 10);
    }
}
