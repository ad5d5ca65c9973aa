//! Asking a certificate authority: the seam, and what every implementation shares.

mod answer;
mod connection;
mod file_drop;
mod google;
mod istio;
mod patience;
mod vault;

use std::{fmt, time::Duration};

use ca_core::{BoxFuture, ElementsError, IssuedChain, KeyError, KeyKind, PrivateKey, PublicKey};
use tonic::Code;

pub(crate) use answer::AnswerFault;
pub(crate) use file_drop::DropCaClient;
pub(crate) use file_drop::DropError;
pub(crate) use google::GoogleCaClient;
pub(crate) use istio::IstioCaClient;
pub(crate) use vault::VaultCaClient;

use crate::{
    credential::{AccessTokenError, TokenError},
    transport::{self, TransportError},
};

/// A certificate authority as an agent sees it.
///
/// What comes back is parsed, **not yet judged**: whether it fits the key and the identity is for
/// [`WorkloadSecret`](crate::secrets::WorkloadSecret) to say.
pub(crate) trait CaClient: fmt::Debug + Send + Sync {
    /// Has a CSR signed. The implementation bounds the time that this may take.
    fn sign(
        &self,
        csr_pem: String,
        lifetime: Duration,
    ) -> BoxFuture<'_, Result<IssuedChain, CaError>>;

    /// The key to have certified next. `in_use` is that of the valid certificate, if there is one.
    ///
    /// A fresh one each time, because a key that leaked once is then worth one lifetime. Only where
    /// an answer takes longer than an attempt must the key be the same as before.
    fn key(&self, in_use: Option<&PublicKey>) -> Result<PrivateKey, KeyError> {
        let _ = in_use;
        PrivateKey::generate(KeyKind::EcdsaP256)
    }

    /// Returns when something that [`sign`](Self::sign) goes by has changed since this was called:
    /// a token, a certificate, roots. For whoever waits after a failure; polled by nobody at rest.
    fn changes(&self) -> BoxFuture<'static, ()>;
}

/// Why there is no certificate. All of these are worth another try later: tokens are replaced, CAs
/// come back, and policies are corrected.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// We have nothing to show.
    #[error(transparent)]
    Credential(#[from] TokenError),
    /// We have nothing to show, and no token was meant to be there.
    #[error("there is no client certificate, and no token file is configured")]
    NoCredential,
    /// Nobody gives us what we should show.
    #[error(transparent)]
    AccessToken(#[from] AccessTokenError),
    /// There was no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The CA took too long.
    #[error("no answer from the CA at {address} within {} s", .limit.as_secs())]
    TimedOut {
        /// Who was asked.
        address: String,
        /// For how long.
        limit: Duration,
    },
    /// Nobody has put a certificate where it should be.
    #[error(transparent)]
    Drop(#[from] DropError),
    /// The CA said no over gRPC.
    #[error("the CA at {address} refused: {code}: {message}", code = code_name(*.code))]
    Refused {
        /// Who was asked.
        address: String,
        /// The gRPC status.
        code: Code,
        /// What it says.
        message: String,
    },
    /// The CA said no over HTTP.
    #[error("the CA at {address} refused: HTTP {status}: {message}")]
    RefusedHttp {
        /// Who was asked.
        address: String,
        /// The status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// An answer that is not what was asked for.
    #[error("the CA at {address} answered something else: {fault}")]
    Answer {
        /// Who was asked.
        address: String,
        /// What is wrong with it.
        #[source]
        fault: AnswerFault,
    },
    /// An answer that does not read.
    #[error("the CA: {0}")]
    Elements(#[from] ElementsError),
}

impl CaError {
    /// Whether it may well be over in a moment, so that a few quick tries are worth their while before
    /// waiting in earnest. The codes are those that Istio's agent tries again on.
    fn is_passing(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_passing(),
            Self::AccessToken(error) => error.is_passing(),
            Self::RefusedHttp { status, .. } => transport::is_passing(*status),
            Self::Refused { code, .. } => matches!(
                code,
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
                    | Code::Aborted
                    | Code::Internal
                    | Code::Unavailable
            ),
            _ => false,
        }
    }
}

/// As gRPC writes it: `Unauthenticated`, `InvalidArgument`.
fn code_name(code: Code) -> String {
    format!("{code:?}")
}
