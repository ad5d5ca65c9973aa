//! What is meant about callers in Kubernetes clusters.

use std::time::Duration;

use ca_auth::kubernetes::Judgement;
use ca_auth::{Audiences, KeySchedule};

use super::AuthenticationError;
use crate::args::{AuthenticationArgs, ClusterCallersArgs, TokensAre};

/// How callers in clusters are judged.
#[derive(Debug)]
pub(crate) struct ClusterCallers {
    pub(crate) audiences: Audiences,
    pub(crate) clock_skew: Duration,
    pub(crate) keys: KeySchedule,
    pub(crate) judgement: Judgement,
    pub(crate) review_cache: Duration,
    pub(crate) max_staleness: Duration,
    /// Each `<namespace>/<service account>`. Empty: nobody is a node proxy.
    pub(crate) node_accounts: Vec<String>,
    pub(crate) remote: bool,
    /// Each with the cluster that it stands for.
    pub(crate) aliases: Vec<(String, String)>,
}

impl ClusterCallers {
    /// What holds for tokens of all kinds is said with the others.
    pub(super) fn new(
        args: &ClusterCallersArgs,
        tokens: &AuthenticationArgs,
    ) -> Result<Self, ClusterCallersFlagsError> {
        let audiences = Audiences::new(tokens.token_audiences.clone());
        Ok(Self {
            audiences: audiences.ok_or(AuthenticationError::NoAudience)?,
            clock_skew: tokens.token_clock_skew,
            keys: KeySchedule {
                refresh: tokens.token_keys_refresh,
                cooldown: tokens.token_keys_cooldown,
                max_age: tokens.token_keys_max_age,
            },
            judgement: match args.kubernetes_tokens {
                TokensAre::Local => Judgement::Local,
                TokensAre::Review => Judgement::Review,
            },
            review_cache: args.kubernetes_review_cache,
            max_staleness: args.kubernetes_max_staleness,
            node_accounts: listed(&args.ca_trusted_node_accounts)
                .map(str::to_owned)
                .collect(),
            remote: args.remote_clusters,
            aliases: listed(&args.cluster_aliases)
                .map(alias)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Manifests set a variable to nothing where they mean that it is not set.
fn listed(list: &[String]) -> impl Iterator<Item = &str> {
    let list = list.iter().map(|entry| entry.trim());
    list.filter(|entry| !entry.is_empty())
}

fn alias(text: &str) -> Result<(String, String), ClusterCallersFlagsError> {
    match text.split_once('=') {
        Some((alias, cluster)) if !alias.is_empty() && !cluster.is_empty() => {
            Ok((alias.into(), cluster.into()))
        }
        _ => Err(ClusterCallersFlagsError::Alias(text.into())),
    }
}

/// What was typed about callers in clusters and cannot be meant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterCallersFlagsError {
    /// As for tokens of other issuers.
    #[error(transparent)]
    Tokens(#[from] AuthenticationError),
    /// Not an alias and its cluster.
    #[error("cluster alias {0:?} is not of the form <alias>=<cluster>")]
    Alias(String),
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;

    fn callers(flags: &[&str]) -> Result<ClusterCallers, String> {
        let args = Args::try_parse_from(["ca-server"].iter().chain(flags)).unwrap();
        ClusterCallers::new(&args.cluster_callers, &args.authentication)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_typed_means_local_verification_and_nobody_for_others() {
        let nothing = callers(&[]).unwrap();
        assert_eq!(nothing.judgement, Judgement::Local);
        assert_eq!(nothing.max_staleness, Duration::from_secs(900));
        assert!(nothing.node_accounts.is_empty() && nothing.aliases.is_empty() && !nothing.remote);
        // What a manifest leaves empty is not set.
        let empty = callers(&["--ca-trusted-node-accounts", "", "--cluster-aliases", ""]).unwrap();
        assert!(empty.node_accounts.is_empty() && empty.aliases.is_empty());
    }

    #[test]
    fn lists_are_read_as_people_write_them() {
        let callers = callers(&[
            "--ca-trusted-node-accounts",
            "istio-system/ztunnel, kube-system/ztunnel",
            "--cluster-aliases",
            "old=eu-1,west=us-1",
        ])
        .unwrap();
        assert_eq!(
            callers.node_accounts,
            ["istio-system/ztunnel", "kube-system/ztunnel"]
        );
        assert_eq!(callers.aliases[1], ("west".to_owned(), "us-1".to_owned()));
    }

    #[test]
    fn an_alias_alone_is_refused() {
        for bad in ["old", "=eu-1", "old="] {
            let error = callers(&["--cluster-aliases", bad]).unwrap_err();
            assert_eq!(
                error,
                format!("cluster alias {bad:?} is not of the form <alias>=<cluster>")
            );
        }
        let error = callers(&["--token-audiences", ""]).unwrap_err();
        assert_eq!(error, "no token audience, or an empty one");
    }
}
