//! A client of the PKI engine of Vault and OpenBao.

mod session;
mod wire;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ca_core::{BoxFuture, IssuedChain};
use http::{Method, Request};

use self::{
    session::{Session, State},
    wire::Refusal,
};
use super::{
    CaClient, CaError,
    answer::AnswerFault,
    patience::{in_time, with_quick_repetitions},
};
use crate::{
    clock,
    config::{VaultCaConfig, VaultLogin},
    credential::{Stamps, TokenFile},
    metrics::Metrics,
    transport::{self, Answer},
};

/// How long Vault may take for what nobody waits for: to renew a token when the certificate is there, or to take one back.
const LEISURE: Duration = Duration::from_secs(2);

/// Asks Vault or OpenBao, which take the names from beside the CSR.
///
/// A token that was got by logging in is kept for the length of its lease, and renewed in its last third;
/// nothing happens between requests. A token from a file is read each time, and renewed with each use.
#[derive(Debug)]
pub(crate) struct VaultCaClient {
    config: VaultCaConfig,
    token: TokenFile,
    /// What logging in gave. Locked to look at it or to replace it, never longer.
    session: Mutex<Option<Arc<Session>>>,
    metrics: Arc<Metrics>,
}

impl VaultCaClient {
    pub(crate) fn new(config: VaultCaConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            token: TokenFile::new(&config.token_file),
            config,
            session: Mutex::default(),
            metrics,
        }
    }

    /// Reads every file that a request will need, so that a wrong path is found at once.
    ///
    /// # Errors
    ///
    /// When one of them cannot be used. A token that has expired is no error: somebody may be about to replace it.
    pub(crate) fn check_files(&self) -> Result<(), CaError> {
        self.config.server.tls(None, b"http/1.1")?;
        self.token.check(clock::now())?;
        Ok(())
    }

    /// One try.
    async fn ask(&self, csr_pem: &str, lifetime: Duration) -> Result<IssuedChain, CaError> {
        let body = wire::sign_body(csr_pem, &self.config.identity, lifetime);
        let body = Bytes::from(body);
        let Some(login) = &self.config.login else {
            let token = self.token.read(clock::now())?;
            let issued = self.sign_with(&token, &body).await?;
            self.renew_at_leisure(&token).await;
            return Ok(issued);
        };
        if let Some(session) = self.usable_session().await {
            match self.sign_with(session.token(), &body).await {
                // Revoked, perhaps, or of somebody else: once more as who we are now.
                Err(CaError::RefusedHttp { status, .. }) if self.is_stale(&session, status) => {
                    tracing::info!("the CA refused us as who we had logged in; logging in again");
                    self.give_back(session).await;
                }
                outcome => return outcome,
            }
        }
        let session = self.log_in(login).await?;
        let outcome = self.sign_with(session.token(), &body).await;
        if let Err(CaError::RefusedHttp { status: 403, .. }) = outcome {
            // What it lacks, only another login can have.
            self.give_back(session).await;
        }
        outcome
    }

    /// Whether a login that was refused so may be at fault: it is not good any more, or the file has another token by now.
    fn is_stale(&self, session: &Session, status: u16) -> bool {
        let has_changed = || {
            let jwt = self.token.read(clock::now());
            jwt.is_ok_and(|jwt| !session.is_of(&jwt))
        };
        status == 403 || (!transport::is_passing(status) && has_changed())
    }

    /// An earlier login that is still good, renewed if it is time.
    async fn usable_session(&self) -> Option<Arc<Session>> {
        let held = self
            .session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()?;
        match held.state(Instant::now()) {
            State::Fresh => Some(held),
            State::Renewable => match self.renew(held.token()).await {
                Ok(renewed) => {
                    let renewed = Arc::new(renewed.in_the_place_of(&held));
                    self.hold(Some(Arc::clone(&renewed)));
                    Some(renewed)
                }
                Err(error) => {
                    tracing::debug!(%error, "the token of the CA is not renewed");
                    None
                }
            },
            State::Over => None,
        }
    }

    async fn log_in(&self, login: &VaultLogin) -> Result<Arc<Session>, CaError> {
        let jwt = self.token.read(clock::now())?;
        let body = Bytes::from_owner(wire::login_body(&login.role, &jwt));
        let answer = self.post(login.path.as_str(), None, body).await?;
        let session = Arc::new(self.session(&answer)?.got_with(&jwt));
        self.hold(Some(Arc::clone(&session)));
        Ok(session)
    }

    fn hold(&self, session: Option<Arc<Session>>) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    async fn renew(&self, token: &str) -> Result<Session, CaError> {
        let answer = self
            .post(
                "auth/token/renew-self",
                Some(token),
                Bytes::from_static(b"{}"),
            )
            .await?;
        self.session(&answer)
    }

    /// For a token that nobody else may be renewing. Not every token can be, and the certificate is there already.
    async fn renew_at_leisure(&self, token: &str) {
        match tokio::time::timeout(LEISURE, self.renew(token)).await {
            Ok(Ok(_)) => tracing::debug!("renewed the token of the CA"),
            Ok(Err(error)) => tracing::debug!(%error, "the token of the CA is not renewed"),
            Err(_) => tracing::debug!("the token of the CA is not renewed in time"),
        }
    }

    /// Uses it no more, and has it revoked: Vault would keep it for the whole of its lease, and one more for each attempt.
    async fn give_back(&self, session: Arc<Session>) {
        self.hold(None);
        let revoke = self.post(
            "auth/token/revoke-self",
            Some(session.token()),
            Bytes::from_static(b"{}"),
        );
        match tokio::time::timeout(LEISURE, revoke).await {
            Ok(Ok(_)) => tracing::debug!("gave a token of the CA back"),
            // It was revoked before, as a rule.
            Ok(Err(error)) => tracing::debug!(%error, "a token of the CA is not given back"),
            Err(_) => tracing::debug!("a token of the CA is not given back in time"),
        }
    }

    fn session(&self, answer: &Answer) -> Result<Session, CaError> {
        let session = wire::read_session(&answer.body, Instant::now());
        session.map_err(|fault| self.strange(fault.into()))
    }

    async fn sign_with(&self, token: &str, body: &Bytes) -> Result<IssuedChain, CaError> {
        let path = self.config.sign.as_str();
        let answer = self.post(path, Some(token), body.clone()).await?;
        wire::read_signed(&answer.body).map_err(|fault| self.strange(fault))
    }

    async fn post(&self, path: &str, token: Option<&str>, body: Bytes) -> Result<Answer, CaError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("/v1/{path}"))
            .header("content-type", "application/json")
            // Listeners may insist on it: a browser cannot be made to send it.
            .header("x-vault-request", "true");
        if let Some(namespace) = &self.config.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if let Some(token) = token {
            request = request.header("x-vault-token", crate::credential::header(token));
        }
        #[expect(
            clippy::expect_used,
            reason = "a `VaultPath` has nothing that a URL has not"
        )]
        let request = request.body(body).expect("a request");
        let answer = transport::ask(&self.config.server, request).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(CaError::RefusedHttp {
            address: self.config.server.address.to_string(),
            status: answer.status.as_u16(),
            message: Refusal::read(&answer.body).to_string(),
        })
    }

    fn strange(&self, fault: AnswerFault) -> CaError {
        CaError::Answer {
            address: self.config.server.address.to_string(),
            fault,
        }
    }
}

impl CaClient for VaultCaClient {
    fn sign(
        &self,
        csr_pem: String,
        lifetime: Duration,
    ) -> BoxFuture<'_, Result<IssuedChain, CaError>> {
        Box::pin(async move {
            let ask = || self.ask(&csr_pem, lifetime);
            let answer = with_quick_repetitions(&self.metrics, ask);
            in_time(&self.config.server.address, answer).await
        })
    }

    fn changes(&self) -> BoxFuture<'static, ()> {
        let token = Some(&self.config.token_file);
        let files = token.into_iter().chain(self.config.server.roots.file());
        Box::pin(Stamps::of(files.cloned()).changed())
    }
}
