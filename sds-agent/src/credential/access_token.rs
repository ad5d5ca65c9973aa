//! A token that is had on the spot, for one request.

use std::fmt;

use http::HeaderValue;
use zeroize::Zeroizing;

use super::{TokenError, header};
use crate::transport::{self, Answer, JsonFault, TransportError, json, one_line, take_token, text};

/// The token. It is good for longer than any request takes, and is not kept: the next request is half a
/// certificate's life away.
pub(crate) struct AccessToken(Zeroizing<String>);

impl AccessToken {
    /// As OAuth 2.0 writes it.
    pub(super) fn read(body: &[u8]) -> Result<Self, JsonFault> {
        let mut json = json(body)?;
        let kind = text(&json, "/token_type", "token_type")?;
        if !kind.eq_ignore_ascii_case("bearer") {
            return Err(JsonFault::Missing("bearer token"));
        }
        take_token(&mut json, "/access_token", "access_token").map(Self)
    }

    /// What came back from `address`, if it is a token.
    pub(super) fn from_answer(answer: &Answer, address: &str) -> Result<Self, AccessTokenError> {
        let address = || address.to_owned();
        if !answer.status.is_success() {
            return Err(AccessTokenError::Refused {
                address: address(),
                status: answer.status.as_u16(),
                message: reason(&answer.body),
            });
        }
        Self::read(&answer.body).map_err(|fault| AccessTokenError::Answer {
            address: address(),
            fault,
        })
    }

    /// For the header `authorization`.
    pub(crate) fn bearer(&self) -> HeaderValue {
        header(&Zeroizing::new(format!("Bearer {}", *self.0)))
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(redacted)")
    }
}

/// As OAuth 2.0 gives reasons; others may say nothing that we understand.
fn reason(body: &[u8]) -> String {
    let json = json(body).unwrap_or_default();
    let parts = ["/error", "/error_description"];
    let parts: Vec<_> = parts
        .into_iter()
        .filter_map(|pointer| text(&json, pointer, "").ok())
        .collect();
    match parts[..] {
        [] => "no reason given".to_owned(),
        _ => one_line(&parts.join(": ")),
    }
}

/// Why there is no access token.
#[derive(Debug, thiserror::Error)]
pub enum AccessTokenError {
    /// There is nothing to exchange.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nobody answered.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The answer was no.
    #[error("no access token from {address}: HTTP {status}: {message}")]
    Refused {
        /// Who was asked.
        address: String,
        /// The status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// The answer was something else.
    #[error("no access token from {address}")]
    Answer {
        /// Who was asked.
        address: String,
        /// What is wrong with it.
        #[source]
        fault: JsonFault,
    },
    /// Somebody else has the address.
    #[error("{address} is not a metadata server")]
    NotMetadata {
        /// Who was asked.
        address: String,
    },
}

impl AccessTokenError {
    /// Whether it may well be over in a moment.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_passing(),
            Self::Refused { status, .. } => transport::is_passing(*status),
            Self::Token(_) | Self::Answer { .. } | Self::NotMetadata { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_bearer_token_is_one() {
        let token = AccessToken::read(br#"{"access_token":"ya29.x","token_type":"Bearer"}"#);
        let token = token.unwrap();
        assert_eq!(token.bearer(), "Bearer ya29.x");
        assert!(!format!("{token:?}{:?}", token.bearer()).contains("ya29"));
        for wrong in [
            "",
            "{}",
            r#"{"access_token":"x"}"#,
            r#"{"access_token":"x","token_type":"mac"}"#,
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"a b","token_type":"Bearer"}"#,
            r#"{"access_token":1,"token_type":"Bearer"}"#,
        ] {
            assert!(AccessToken::read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        let body = br#"{"error":"invalid_grant","error_description":"the token\nhas expired"}"#;
        assert_eq!(reason(body), "invalid_grant: the token has expired");
        assert_eq!(reason(b"<html>"), "no reason given");
    }

    proptest! {
        /// Whatever stands in the place of a token is refused, or goes into a header.
        #[test]
        fn no_answer_with_a_token_does_harm(
            body in proptest::collection::vec(any::<u8>(), 0..64),
            token in any::<String>(),
            kind in "(?i)bearer|mac|",
        ) {
            let shaped = serde_json::json!({"access_token": token, "token_type": kind, "error": token});
            for body in [body, shaped.to_string().into_bytes()] {
                if let Ok(token) = AccessToken::read(&body) {
                    prop_assert!(token.bearer().to_str().unwrap().starts_with("Bearer "));
                }
                prop_assert!(reason(&body).lines().count() <= 1);
            }
        }
    }
}
