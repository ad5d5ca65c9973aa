//! The keys that sign the tokens of a cluster, from its own API server.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use kube::Client;
use serde::Deserialize;
use tokio::time::timeout;

use super::follow::shown;
use crate::authenticator::Reason;
use crate::issuer_keys::IssuerKeys;
use crate::remote_keys::{Fetched, KeySchedule, RemoteKeys};

/// Follows the keys of a cluster. Whom they belong to is asked each time as well: the issuer of a cluster can be changed.
///
/// Over the connection that we have anyway: the address in the discovery document may be one that only others reach, and
/// needs nothing but what every service account may read.
pub(super) fn follow_keys(client: Client, cluster: &str, schedule: KeySchedule) -> RemoteKeys {
    let place: Arc<str> = format!("cluster {cluster}").into();
    let fetch = move || -> Fetched {
        let client = client.clone();
        Box::pin(async move {
            let keys = timeout(DEADLINE, fetch(&client)).await;
            keys.map_err(|_| Reason::from("no answer in time"))?
        })
    };
    RemoteKeys::start_with(place, fetch, schedule)
}

async fn fetch(client: &Client) -> Result<IssuerKeys, Reason> {
    let discovery = get(client, "/.well-known/openid-configuration").await?;
    let keys = get(client, "/openid/v1/jwks").await?;
    read(&discovery, &keys)
}

async fn get(client: &Client, path: &str) -> Result<String, Reason> {
    let request = Request::get(path).body(Vec::new())?;
    let answer = client.request_text(request).await;
    answer.map_err(|error| format!("{path}: {}", shown(&error)).into())
}

fn read(discovery: &str, keys: &str) -> Result<IssuerKeys, Reason> {
    let discovery: Discovery = serde_json::from_str(discovery).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("not a discovery document: wrong at line {line}, column {column}")
    })?;
    if discovery.issuer.is_empty() {
        return Err("the discovery document names no issuer".into());
    }
    Ok(IssuerKeys::parse(keys.as_bytes())?.published_by(discovery.issuer))
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

const DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_with_their_issuer_or_not_at_all() {
        let keys = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let issuer = r#"{"issuer":"https://kubernetes.default.svc","jwks_uri":"https://10.0.0.1/openid/v1/jwks"}"#;
        let read = |discovery: &str, keys: &str| read(discovery, keys).map_err(|e| e.to_string());
        let good = read(issuer, keys).unwrap();
        assert_eq!(good.issuer(), Some("https://kubernetes.default.svc"));
        assert_eq!(good.len(), 1);
        for (discovery, keys, reason) in [
            (
                "{}",
                keys,
                "not a discovery document: wrong at line 1, column 2",
            ),
            (
                "",
                keys,
                "not a discovery document: wrong at line 1, column 0",
            ),
            (
                r#"{"issuer":""}"#,
                keys,
                "the discovery document names no issuer",
            ),
            (
                issuer,
                "{\"keys\":[]}",
                "no key in the JWK Set can be used: it is empty",
            ),
        ] {
            assert_eq!(read(discovery, keys).unwrap_err(), reason);
        }
    }
}
