//! A client of Google's Certificate Authority Service, over its REST API.

mod wire;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ca_core::{BoxFuture, IssuedChain, random_unit};
use http::{Method, Request, header};

use super::{
    CaClient, CaError,
    answer::AnswerFault,
    patience::{in_time, with_quick_repetitions},
};
use crate::{
    clock,
    config::{GoogleAccess, GoogleCaConfig},
    credential::{self, AccessToken, AccessTokenError, Stamps, TokenFile},
    metrics::Metrics,
    transport::{self, Answer},
};

/// Asks a pool of CAs at Google. Nothing is kept between requests: an access token would be over by the next.
#[derive(Debug)]
pub(crate) struct GoogleCaClient {
    config: GoogleCaConfig,
    metrics: Arc<Metrics>,
}

impl GoogleCaClient {
    pub(crate) fn new(config: GoogleCaConfig, metrics: Arc<Metrics>) -> Self {
        Self { config, metrics }
    }

    /// Reads every file that a request will need, so that a wrong path is found at once.
    ///
    /// # Errors
    ///
    /// When one of them cannot be used. A token that has expired is no error: somebody may be about to replace it.
    pub(crate) fn check_files(&self) -> Result<(), CaError> {
        self.config.server.tls(None, b"http/1.1")?;
        if let GoogleAccess::Exchange { token_file, .. } = &self.config.access {
            TokenFile::new(token_file).check(clock::now())?;
        }
        Ok(())
    }

    /// One try. `name` is the same for all tries, so that a certificate whose answer was lost is not issued twice.
    async fn ask(
        &self,
        name: &RequestName,
        csr_pem: &str,
        lifetime: Duration,
    ) -> Result<IssuedChain, CaError> {
        let token = self.access_token().await?;
        let body = wire::create_body(csr_pem, lifetime, self.config.subject);
        let path = format!(
            "/certificates?certificateId={}&requestId={}",
            name.certificate, name.request
        );
        let created = self.post(&path, &token, body).await?;
        let roots = self.post(":fetchCaCerts", &token, b"{}".to_vec()).await?;
        wire::read_issued(&created.body, &roots.body).map_err(|fault| self.strange(fault))
    }

    async fn access_token(&self) -> Result<AccessToken, AccessTokenError> {
        match &self.config.access {
            GoogleAccess::Metadata { host, port } => credential::from_metadata(host, *port).await,
            GoogleAccess::Exchange {
                server,
                audience,
                token_file,
            } => {
                let token = TokenFile::new(token_file).read(clock::now())?;
                credential::exchange(server, audience, &token).await
            }
        }
    }

    async fn post(
        &self,
        path: &str,
        token: &AccessToken,
        body: Vec<u8>,
    ) -> Result<Answer, CaError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/v1/{}{path}", self.config.pool))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, token.bearer());
        #[expect(
            clippy::expect_used,
            reason = "a `CaPool` and our own names have nothing that a URL has not"
        )]
        let request = request.body(Bytes::from(body)).expect("a request");
        let answer = transport::ask(&self.config.server, request).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(CaError::RefusedHttp {
            address: self.config.server.address.to_string(),
            status: answer.status.as_u16(),
            message: wire::reason(&answer.body),
        })
    }

    fn strange(&self, fault: AnswerFault) -> CaError {
        CaError::Answer {
            address: self.config.server.address.to_string(),
            fault,
        }
    }
}

impl CaClient for GoogleCaClient {
    fn sign(
        &self,
        csr_pem: String,
        lifetime: Duration,
    ) -> BoxFuture<'_, Result<IssuedChain, CaError>> {
        Box::pin(async move {
            let name = RequestName::new();
            let ask = || self.ask(&name, &csr_pem, lifetime);
            let answer = with_quick_repetitions(&self.metrics, ask);
            in_time(&self.config.server.address, answer).await
        })
    }

    fn changes(&self) -> BoxFuture<'static, ()> {
        let token = match &self.config.access {
            GoogleAccess::Metadata { .. } => None,
            GoogleAccess::Exchange { token_file, .. } => Some(token_file),
        };
        let files = token.into_iter().chain(self.config.server.roots.file());
        Box::pin(Stamps::of(files.cloned()).changed())
    }
}

/// What a request and its certificate are called at Google.
struct RequestName {
    /// A UUID.
    request: String,
    /// Up to 63 letters, digits and hyphens, unique in the pool.
    certificate: String,
}

impl RequestName {
    /// By chance: nothing depends on it but that no two are equal.
    fn new() -> Self {
        let [a, b, c, d] = [(); 4].map(|()| random_word());
        // Version 4, variant 1, which only look like themselves.
        let (b, c) = (b & 0xffff_0fff | 0x4000, c & 0x3fff_ffff | 0x8000_0000);
        let request = format!(
            "{a:08x}-{:04x}-{:04x}-{:04x}-{:04x}{d:08x}",
            b >> 16,
            b & 0xffff,
            c >> 16,
            c & 0xffff
        );
        Self {
            certificate: format!("workload-{}", request.replace('-', "")),
            request,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the greatest number of its kind"
)]
fn random_word() -> u32 {
    (random_unit() * f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_certificates_have_names_of_the_right_form() {
        let (one, two) = (RequestName::new(), RequestName::new());
        assert_ne!(one.request, two.request);
        let parts: Vec<_> = one.request.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert!(&one.request[14..15] == "4" && "89ab".contains(&one.request[19..20]));
        assert!(one.certificate.len() <= 63, "{}", one.certificate);
    }
}
