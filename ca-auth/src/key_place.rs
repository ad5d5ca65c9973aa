//! Where on the network an issuer publishes its keys.

use std::fmt;

use serde::Deserialize;

use crate::https::{DocumentUrl, FetchError, HttpsClient, UrlError};
use crate::issuer_keys::{IssuerKeys, IssuerKeysError};

/// A JWK Set at a known address, or wherever the issuer says it is.
#[derive(Clone, Debug)]
pub struct KeyPlace(Place);

#[derive(Clone, Debug)]
enum Place {
    JwkSet(DocumentUrl),
    /// The document is asked each time: an issuer may move its keys.
    Discovery {
        issuer: String,
        document: DocumentUrl,
    },
}

impl KeyPlace {
    /// The JWK Set at `url`.
    pub fn jwk_set(url: DocumentUrl) -> Self {
        Self(Place::JwkSet(url))
    }

    /// The JWK Set that `<issuer>/.well-known/openid-configuration` names (OpenID Connect Discovery 1.0,
    /// section 4).
    ///
    /// # Errors
    /// When the name of the issuer is not a URL that a document can be fetched from.
    pub fn discovered(issuer: &str) -> Result<Self, UrlError> {
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        Ok(Self(Place::Discovery {
            issuer: issuer.into(),
            document: format!("{base}{WELL_KNOWN}").parse()?,
        }))
    }

    /// What is published there now.
    ///
    /// # Errors
    /// When a document does not come, or is not what it should be.
    pub async fn fetch(&self, client: &HttpsClient) -> Result<IssuerKeys, KeyPlaceError> {
        let url = match &self.0 {
            Place::JwkSet(url) => url.clone(),
            Place::Discovery { issuer, document } => {
                jwks_uri(issuer, document, &client.get(document).await?)?
            }
        };
        let content = client.get(&url).await?;
        IssuerKeys::parse(&content).map_err(|cause| KeyPlaceError::Keys {
            url: url.to_string(),
            cause,
        })
    }
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::JwkSet(url) => url.fmt(f),
            Place::Discovery { document, .. } => document.fmt(f),
        }
    }
}

/// Reads a discovery document.
fn jwks_uri(
    issuer: &str,
    document: &DocumentUrl,
    content: &[u8],
) -> Result<DocumentUrl, KeyPlaceError> {
    let read: Discovery =
        serde_json::from_slice(content).map_err(|error| KeyPlaceError::Discovery {
            url: document.to_string(),
            line: error.line(),
            column: error.column(),
        })?;
    // Section 4.3: identical, so that nobody speaks for an issuer whose documents they happen to serve.
    if read.issuer != issuer {
        return Err(KeyPlaceError::OtherIssuer {
            url: document.to_string(),
            found: read.issuer.chars().take(64).collect(),
        });
    }
    let url: DocumentUrl = read.jwks_uri.parse()?;
    if document.is_encrypted() && !url.is_encrypted() {
        return Err(KeyPlaceError::Downgrade {
            url: url.to_string(),
        });
    }
    Ok(url)
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Why there are no keys at a place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyPlaceError {
    /// A document does not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Not a discovery document.
    #[error("{url}: not a discovery document: wrong at line {line}, column {column}")]
    Discovery {
        /// Where it is.
        url: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// The discovery document of somebody else.
    #[error("{url}: speaks for issuer {found:?}")]
    OtherIssuer {
        /// Where it is.
        url: String,
        /// What it says.
        found: String,
    },
    /// The discovery document does not say where the keys are.
    #[error("jwks_uri: {0}")]
    Url(#[from] UrlError),
    /// An issuer elsewhere that points at an address of this machine.
    #[error("jwks_uri {url}: not encrypted although its issuer is")]
    Downgrade {
        /// What the document says.
        url: String,
    },
    /// Not a set of keys.
    #[error("{url}: {cause}")]
    Keys {
        /// Where it is.
        url: String,
        /// What is wrong with it.
        #[source]
        cause: IssuerKeysError,
    },
}

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discovery_document_must_be_the_issuers_own_and_point_to_an_encrypted_place() {
        let read = |issuer: &str, content: &str| {
            let Place::Discovery { document, .. } = KeyPlace::discovered(issuer).unwrap().0 else {
                panic!("not a discovery");
            };
            jwks_uri(issuer, &document, content.as_bytes())
                .map(|url| url.to_string())
                .map_err(|error| error.to_string())
        };
        let at = "https://issuer.example/tenant/.well-known/openid-configuration";
        let issuer = "https://issuer.example/tenant";
        let good = r#"{"issuer":"https://issuer.example/tenant","jwks_uri":"https://keys.example/k","x":[1]}"#;
        assert_eq!(read(issuer, good).unwrap(), "https://keys.example/k");
        for (content, reason) in [
            (
                good.replace("/tenant", "/tenant/"),
                format!("{at}: speaks for issuer \"https://issuer.example/tenant/\""),
            ),
            (
                good.replace("https://keys.example/k", "http://keys.example/k"),
                "jwks_uri: URL \"http://keys.example/k\": it must start with https://".into(),
            ),
            (
                good.replace("https://keys.example/k", "http://127.0.0.1/k"),
                "jwks_uri http://127.0.0.1/k: not encrypted although its issuer is".into(),
            ),
            (
                r#"{"issuer":"https://issuer.example/tenant"}"#.into(),
                format!("{at}: not a discovery document: wrong at line 1, column 42"),
            ),
            (
                "<html>".into(),
                format!("{at}: not a discovery document: wrong at line 1, column 1"),
            ),
        ] {
            assert_eq!(read(issuer, &content).unwrap_err(), reason);
        }
    }

    #[test]
    fn one_slash_at_the_end_of_an_issuer_is_not_doubled() {
        let place = KeyPlace::discovered("https://issuer.example/").unwrap();
        let expected = "https://issuer.example/.well-known/openid-configuration";
        assert_eq!(place.to_string(), expected);
        assert!(KeyPlace::discovered("kubernetes/serviceaccount").is_err());
    }
}
