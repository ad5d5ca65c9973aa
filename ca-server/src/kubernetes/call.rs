//! One call of the API server: with an end, and with an error that says what may be done about it.

use std::time::Duration;

use kube::core::Status;

/// How long the answer to one call may take. A healthy API server takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// Waits for the answer, but not for ever: the client itself would.
pub(crate) async fn call<T>(
    asked: impl Future<Output = kube::Result<T>> + Send,
) -> Result<T, CallError> {
    match tokio::time::timeout(DEADLINE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(CallError::Refused(status)),
        Ok(Err(cause)) => Err(CallError::Unreachable(cause)),
        Err(_) => Err(CallError::Late),
    }
}

/// Why there is no good answer. Of the last two nobody knows whether the call was carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The API server says no.
    #[error("{} ({})", .0.message, .0.code)]
    Refused(Box<Status>),
    /// It cannot be asked, or does not speak as expected.
    #[error("the API server cannot be asked: {}", with_causes(.0))]
    Unreachable(kube::Error),
    /// It takes too long.
    #[error("the API server did not answer within {} s", DEADLINE.as_secs())]
    Late,
}

/// The library's own words hide what has failed below it.
fn with_causes(error: &kube::Error) -> String {
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

impl CallError {
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(status) if status.is_not_found())
    }

    /// Somebody else was quicker: the object is not what it was, or is there already.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(status) if status.is_conflict() || status.is_already_exists())
    }

    /// The namespace is on its way out: nothing new can be put there, and nobody will miss it.
    pub(crate) fn is_namespace_terminating(&self) -> bool {
        let Self::Refused(status) = self else {
            return false;
        };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes
            .into_iter()
            .any(|cause| cause.reason == "NamespaceTerminating")
    }
}
