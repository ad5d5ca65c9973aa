//! Why there is no certificate, by what can be done about it.

use std::time::Duration;

use ca_core::{CertificateError, SignError, TrustError, format_duration};

use super::outcome::Refusal;
use crate::returned::ReturnedError;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubernetesSignerError {
    /// The caller names a signer, and there is no domain to look for it.
    #[error("certSignerDomain is required for signer {0:?}")]
    NoSignerDomain(String),
    /// The caller names no signer, and there is no default.
    #[error("the request names no signer, and there is none for such requests")]
    NoSigner,
    /// Shorter than the API takes.
    #[error(
        "lifetime {}: the certificate API of Kubernetes makes none shorter than 10m0s",
        format_duration(*.0)
    )]
    TooShort(Duration),
    /// Nobody has said yet who is to sign.
    #[error("no issuer is configured: {0}")]
    NoIssuer(String),
    /// The API server did not do what was asked.
    #[error("cannot {doing}: {}", shown(cause))]
    Api {
        /// Such as `create certificate request istio-csr-x`.
        doing: String,
        /// What it says.
        cause: Box<kube::Error>,
    },
    /// Whoever decides or signs will not; or somebody has deleted the request.
    #[error("certificate request {name} {refusal}")]
    Refused {
        /// The object.
        name: String,
        /// Who, and why.
        refusal: Refusal,
    },
    /// Nobody has signed in time.
    #[error("certificate request {name}: no certificate within {}", format_duration(*limit))]
    Late {
        /// The object.
        name: String,
        /// For how long it was waited for.
        limit: Duration,
    },
    /// The answer is not a list of certificates.
    #[error("the signer's answer: {0}")]
    Answer(#[from] CertificateError),
    /// The answer has more certificates than any chain.
    #[error("the signer's answer has {count} certificates")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// There is nothing to verify the answer with.
    #[error("no roots are configured for the signer, and its answer brings none: {0}")]
    NoRoots(TrustError),
    /// An answer to another question.
    #[error("the signer's answer: {0}")]
    Returned(#[from] ReturnedError),
    /// There is no key, or no request, for a server of our own.
    #[error("a certificate for this server: {0}")]
    OwnRequest(String),
}

impl KubernetesSignerError {
    pub(super) fn api(doing: impl Into<String>, cause: kube::Error) -> Self {
        Self::Api {
            doing: doing.into(),
            cause: Box::new(cause),
        }
    }

    /// Whether the same request may succeed in a moment.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Api { cause, .. } => is_passing(cause),
            Self::Refused { refusal, .. } => matches!(refusal, Refusal::Deleted),
            Self::NoIssuer(_) | Self::Late { .. } => true,
            Self::NoSignerDomain(_)
            | Self::NoSigner
            | Self::TooShort(_)
            | Self::Answer(_)
            | Self::TooMany { .. }
            | Self::NoRoots(_)
            | Self::Returned(_)
            | Self::OwnRequest(_) => false,
        }
    }
}

/// One line. The library's own words hide the cause of what fails below HTTP.
pub(super) fn shown(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} ({})", status.message, status.code);
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        let said = deeper.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = deeper.source();
    }
    text
}

/// Whether the API server may do tomorrow what it does not do today: it is away, busy, or was not understood.
pub(super) fn is_passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 408 | 429 | 500..),
        _ => true,
    }
}

impl From<KubernetesSignerError> for SignError {
    fn from(error: KubernetesSignerError) -> Self {
        match error {
            // The caller can ask for another lifetime.
            KubernetesSignerError::TooShort(_) => Self::Refused(error.to_string()),
            KubernetesSignerError::Answer(_)
            | KubernetesSignerError::TooMany { .. }
            | KubernetesSignerError::NoRoots(_)
            | KubernetesSignerError::Returned(_) => Self::BadAnswer(error.to_string()),
            error if error.is_retryable() => Self::Unavailable(error.to_string()),
            error => Self::Declined(error.to_string()),
        }
    }
}
