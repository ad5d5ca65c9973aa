//! From what is meant about callers to the parts that judge them.

use std::path::PathBuf;
use std::sync::Arc;

use ca_auth::{
    Authenticator, Authenticators, Authorizer, ClientCertificateAuthenticator,
    ForwardedCertificateAuthenticator, HttpsClient, IssuerKeys, JwtAuthenticator, KeySchedule,
    LocalIssuer, Policy, RemoteKeys,
};
use ca_core::TrustDomain;
use ca_core::files::{FileSet, FollowError, FollowOptions, FollowedFiles, Snapshot};

use crate::cli::token::TokenKeyError;
use crate::config::{Authentication, Issuer, Keys, Tokens};

mod cluster_callers;
mod witnessed;

pub(crate) use cluster_callers::ClusterCallers;
pub use cluster_callers::ClusterCallersError;

pub(crate) use witnessed::Witness;
use witnessed::Witnessed;

/// Who is believed, in Istio's order: the certificate of a connection, tokens of issuers and then of clusters, what a proxy says.
/// Starts to follow issuers. `local_issuer` is asked where neither issuers nor clusters are; the witness learns of every verdict.
pub(crate) fn authenticators(
    config: Authentication,
    trust_domain: &TrustDomain,
    clusters: Option<&ClusterCallers>,
    local_issuer: impl FnOnce() -> Result<LocalIssuer, TokenKeyError>,
    witness: &Arc<dyn Witness>,
) -> Result<Authenticators, AuthenticatorsError> {
    let proxies = config.proxies;
    let mut certificate = ClientCertificateAuthenticator::new(trust_domain.clone())
        .with_trusted_proxies(proxies.clone().unwrap_or_default());
    if let Some(age) = config.renewal_max_age {
        certificate = certificate.with_max_age(age);
    }
    let mut in_order: Vec<Box<dyn Authenticator>> = vec![Box::new(certificate)];
    match config.tokens {
        // Whoever is in a cluster has tokens of it.
        Tokens::Local(_) if clusters.is_some() => {}
        Tokens::Local(audiences) => {
            let keys = local_issuer()?.keys();
            let jwt = JwtAuthenticator::new(trust_domain.clone(), keys, audiences);
            in_order.push(Box::new(jwt.with_issuer(LocalIssuer::NAME)));
        }
        Tokens::Issuers(issuers) => {
            for issuer in issuers {
                in_order.push(Box::new(jwt(issuer, config.schedule, trust_domain)?));
            }
        }
    }
    if let Some(clusters) = clusters {
        in_order.push(Box::new(clusters.authenticator()));
    }
    if let Some(proxies) = proxies {
        let forwarded = ForwardedCertificateAuthenticator::new(trust_domain.clone(), proxies);
        in_order.push(Box::new(forwarded));
    }
    if !config.enabled {
        tracing::warn!("authentication is switched off: every request is refused");
        in_order.clear();
    }
    let in_order = in_order.into_iter().map(|inner| {
        let witness = Arc::clone(witness);
        Box::new(Witnessed { inner, witness }) as Box<dyn Authenticator>
    });
    Ok(Authenticators::new(in_order.collect()))
}

fn jwt(
    issuer: Issuer,
    schedule: KeySchedule,
    trust_domain: &TrustDomain,
) -> Result<JwtAuthenticator, AuthenticatorsError> {
    let (mesh, audiences) = (trust_domain.clone(), issuer.audiences);
    let jwt = match issuer.keys {
        Keys::File(path) => {
            let keys = follow(path, "token issuer keys", |content| {
                IssuerKeys::parse(content).map_err(|error| error.to_string())
            })?;
            JwtAuthenticator::new(mesh, keys, audiences)
        }
        Keys::Place(place, roots) => {
            let client = follow(roots, "roots for token issuers", |content| {
                HttpsClient::new(content).map_err(|error| error.to_string())
            })?;
            let client = move || HttpsClient::clone(&client.current());
            let keys = RemoteKeys::start(place, client, schedule);
            JwtAuthenticator::new(mesh, keys, audiences)
        }
    };
    let jwt = jwt
        .with_clock_skew(issuer.clock_skew)
        .with_subject_rule(issuer.subject);
    Ok(match issuer.name {
        Some(name) => jwt.with_issuer(name),
        None => jwt,
    })
}

/// Who may have what: by the policy, or its own names alone. With the file that is followed.
pub(crate) fn authorizer(
    policy: Option<&PathBuf>,
    trust_domain: &TrustDomain,
) -> Result<(Authorizer, Option<FollowedFiles<Policy>>), AuthenticatorsError> {
    let Some(path) = policy.cloned() else {
        return Ok((Authorizer::own_names(), None));
    };
    let mesh = trust_domain.clone();
    let file = follow(path, "policy", move |content| {
        let text = str::from_utf8(content).map_err(|error| error.to_string())?;
        Policy::parse(text, &mesh).map_err(|error| error.to_string())
    })?;
    Ok((Authorizer::by_policy_file(file.clone()), Some(file)))
}

/// Follows a file, and says in the log when it is replaced and when what it holds is not taken.
fn follow<T: Send + Sync + 'static>(
    path: PathBuf,
    what: &'static str,
    parse: impl Fn(&[u8]) -> Result<T, String> + Send + 'static,
) -> Result<FollowedFiles<T>, AuthenticatorsError> {
    let read = {
        let path = path.clone();
        move |files: &Snapshot, _: Option<&T>| {
            let content = files.require(&path).map_err(|error| error.to_string())?;
            parse(content)
        }
    };
    let set = FileSet::new().required(&path);
    let followed = FollowedFiles::start(set, FollowOptions::new(), read).map_err(|cause| {
        AuthenticatorsError::File {
            what,
            path: path.clone(),
            cause,
        }
    })?;
    let (mut changes, mut refusals) = (followed.subscribe(), followed.subscribe());
    // It ends with the process: it only tells, and whoever uses the file does not wait for it.
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = changes.changed() => tracing::info!(path = %path.display(), "{what} replaced"),
                refusal = refusals.refused() => {
                    let reason = refusal.error.to_string();
                    tracing::error!(path = %path.display(), reason, "{what} not replaced");
                }
            }
        }
    });
    Ok(followed)
}

/// Why callers cannot be judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticatorsError {
    /// There is no issuer of local tokens.
    #[error("local token issuer: {0}")]
    Tokens(#[from] TokenKeyError),
    /// Callers in clusters cannot be judged.
    #[error(transparent)]
    Clusters(#[from] ClusterCallersError),
    /// A file that must be good at the start is not.
    #[error("{what} {}: {cause}", path.display())]
    File {
        /// What it holds.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: FollowError,
    },
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ca_auth::{AuthnError, Caller};
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;

    #[derive(Debug)]
    struct Nobody;

    impl Witness for Nobody {
        fn verdict(&self, _: &'static str, _: &Result<Caller, AuthnError>, _: Duration) {}
    }

    /// Istio's: certificate, rule, and behind them what a proxy says.
    #[tokio::test]
    async fn callers_are_judged_in_istios_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let keys = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        std::fs::write(&path, keys).unwrap();
        let keys = path.to_str().unwrap();
        let rule = serde_json::json!({ "issuer": "rule", "jwks_uri": keys }).to_string();
        let issuers = folder.path().join("issuers.toml");
        let text = format!("[[issuer]]\nname = \"file\"\nkeys = {keys:?}\n");
        std::fs::write(&issuers, text).unwrap();
        let args = Args::try_parse_from([
            "ca-server",
            "--trusted-gateway-cidr=10.0.0.0/8",
            "--token-issuers",
            issuers.to_str().unwrap(),
            "--token-issuer=flags",
            "--token-issuer-keys",
            keys,
            "--jwt-rule",
            &rule,
        ]);
        let config: Authentication = args.unwrap().authentication.try_into().unwrap();
        let witness: Arc<dyn Witness> = Arc::new(Nobody);
        let all = authenticators(
            config,
            &"cluster.local".parse().unwrap(),
            None,
            || panic!("nobody asks for local tokens"),
            &witness,
        );
        let all = all.unwrap().status();
        let order: Vec<_> = all
            .iter()
            .map(|each| (each.name, each.issuer.as_deref()))
            .collect();
        assert_eq!(
            order,
            [
                ("client-certificate", None),
                ("jwt", Some("rule")),
                ("jwt", Some("flags")),
                ("jwt", Some("file")),
                ("forwarded-certificate", None),
            ]
        );
    }
}
