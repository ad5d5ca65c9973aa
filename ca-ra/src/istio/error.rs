//! Why there is no certificate, by what can be done about it.

use std::error::Error as _;
use std::fmt::Write as _;
use std::time::Duration;

use ca_core::files::FollowError;
use ca_core::{ElementsError, SignError};
use tonic::{Code, Status};

use super::address::UpstreamAddress;
use super::credential::TokenError;
use crate::returned::ReturnedError;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// Roots or client certificate cannot be used: an operator must act.
    #[error("files for the upstream CA: {0}")]
    Files(#[source] FollowError),
    /// There is no token to show.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nobody is there, it is not who we trust, or it cannot answer now. Try again later.
    #[error("the upstream CA at {address} is not available: {code:?}: {message:?}")]
    Unavailable {
        /// Who was asked.
        address: String,
        /// The gRPC status.
        code: Code,
        /// What it says, with the causes.
        message: String,
        /// How long it asks to be left alone.
        pushback: Option<Duration>,
    },
    /// No answer in time. Try again later.
    #[error("no answer from the upstream CA at {address} within {} s", limit.as_secs())]
    TimedOut {
        /// Who was asked.
        address: String,
        /// For how long.
        limit: Duration,
    },
    /// The request itself is at fault.
    #[error("the upstream CA at {address} refuses the request: {message:?}")]
    Refused {
        /// Who was asked.
        address: String,
        /// What it says.
        message: String,
    },
    /// We are not believed, or may not have what we ask for: an operator must act, here or there.
    #[error("the upstream CA at {address} refuses us: {code:?}: {message:?}")]
    Denied {
        /// Who was asked.
        address: String,
        /// The gRPC status.
        code: Code,
        /// What it says.
        message: String,
    },
    /// An answer that cannot be read.
    #[error("the upstream CA: {0}")]
    Answer(#[from] ElementsError),
    /// An answer to another question.
    #[error("the upstream CA: {0}")]
    Returned(#[from] ReturnedError),
}

impl UpstreamError {
    pub(super) fn of(address: &UpstreamAddress, status: &Status) -> Self {
        let (address, code) = (address.to_string(), status.code());
        let mut message: String = status.message().chars().take(LONGEST_MESSAGE).collect();
        // What failed below gRPC tells only by its sources, some of which say what the next one says too.
        let mut source = status.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Of that one the text is "transport error", whatever went wrong.
            if !cause.is::<tonic::transport::Error>() && !message.contains(&text) {
                let _ = write!(message, ": {text}");
            }
            source = cause.source();
        }
        match code {
            // Istio's agents try again after these.
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            // What a broken connection or a proxy in between makes of an answer.
            | Code::Unknown => Self::Unavailable {
                address,
                code,
                message,
                pushback: pushback(status),
            },
            Code::InvalidArgument => Self::Refused { address, message },
            _ => Self::Denied {
                address,
                code,
                message,
            },
        }
    }

    /// Whether the same question may be answered in a moment.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { code, .. } => *code != Code::Unknown,
            _ => false,
        }
    }

    pub(super) fn wait_asked_for(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { pushback, .. } => *pushback,
            _ => None,
        }
    }
}

/// How a server under load asks for patience (gRPC, A6).
fn pushback(status: &Status) -> Option<Duration> {
    let value = status.metadata().get("grpc-retry-pushback-ms")?;
    value.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

impl From<UpstreamError> for SignError {
    fn from(error: UpstreamError) -> Self {
        match error {
            // In its words: they are about what the caller has sent.
            UpstreamError::Refused { message, .. } => Self::Refused(message),
            UpstreamError::Answer(_) | UpstreamError::Returned(_) => {
                Self::BadAnswer(error.to_string())
            }
            // No fault of the caller's, and over when the upstream is back or somebody has acted.
            UpstreamError::Files(_)
            | UpstreamError::Token(_)
            | UpstreamError::Unavailable { .. }
            | UpstreamError::TimedOut { .. }
            | UpstreamError::Denied { .. } => Self::Unavailable(error.to_string()),
        }
    }
}

/// In characters: more than any sentence of a CA.
const LONGEST_MESSAGE: usize = 512;
