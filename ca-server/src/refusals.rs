//! The last requests that were refused, for whoever asks why.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use ca_auth::{AuthzError, Caller, Evidence};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::report::shown;
use crate::status::IssueError;

/// Remembers the last [`KEPT`] refusals and how many there were in all.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: VecDeque<Refused>,
    count: u64,
}

/// One of them. It says what the log says, so **never a token**.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// RFC 3339, UTC.
    pub(crate) time: String,
    pub(crate) peer: Option<String>,
    /// What it says of itself.
    pub(crate) cluster: Option<String>,
    /// The names it has proved, where it got that far.
    pub(crate) caller: Vec<String>,
    pub(crate) reason: String,
    /// Where nobody vouches for it: why each authenticator does not.
    pub(crate) authenticators: Vec<AuthenticatorReason>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuthenticatorReason {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl Refusals {
    pub(crate) fn add(&self, refused: Refused) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        if state.last.len() == KEPT {
            state.last.pop_front();
        }
        state.last.push_back(refused);
    }

    /// Those that are remembered, the latest first.
    pub(crate) fn last(&self) -> Vec<Refused> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.iter().rev().cloned().collect()
    }

    /// How many there were, also those that are forgotten.
    pub(crate) fn count(&self) -> u64 {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.count
    }
}

impl Refused {
    pub(crate) fn new(
        now: OffsetDateTime,
        evidence: &Evidence,
        caller: Option<&Caller>,
        error: &IssueError,
    ) -> Self {
        let identities = match (caller, error) {
            (Some(caller), _) => Some(&caller.identities),
            // Who it is was known; what it asked for is not its own.
            (
                None,
                IssueError::Authorization(
                    AuthzError::NotItsName { caller, .. } | AuthzError::Denied { caller, .. },
                ),
            ) => Some(&**caller),
            _ => None,
        };
        let reasons = match error {
            IssueError::Authentication(refusal) => refusal.reasons(),
            _ => &[],
        };
        Self {
            time: shown(now),
            peer: evidence.peer_address().map(|address| address.to_string()),
            cluster: evidence.cluster().map(shortened),
            caller: identities
                .map(|names| names.as_slice().iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            reason: shortened(&error.to_string()),
            authenticators: reasons
                .iter()
                .map(|(name, reason)| AuthenticatorReason {
                    name: (*name).into(),
                    reason: shortened(&reason.to_string()),
                })
                .collect(),
        }
    }
}

/// Parts of it come from the caller, who does not get to say how much is kept.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Enough to see a pattern, and nothing that a flood of refusals could fill the memory with.
pub(crate) const KEPT: usize = 50;
/// Characters of one sentence.
const LONGEST: usize = 500;

#[cfg(test)]
mod tests {
    use ca_auth::{Authenticators, Transport};
    use ca_core::testing::now;

    use super::*;

    async fn refused(cluster: &str) -> Refused {
        let evidence = Evidence::new(Transport::Plaintext)
            .with_authorization("Bearer secret-token")
            .with_cluster(cluster)
            .with_peer_address("10.0.0.7:4711".parse().unwrap());
        let refusal = Authenticators::new(Vec::new())
            .authenticate(&evidence, now())
            .await
            .unwrap_err();
        Refused::new(now(), &evidence, None, &refusal.into())
    }

    #[tokio::test]
    async fn the_last_ones_are_kept_the_latest_first_and_all_are_counted() {
        let refusals = Refusals::default();
        for number in 0..KEPT + 3 {
            refusals.add(refused(&number.to_string()).await);
        }
        let last = refusals.last();
        assert_eq!((last.len(), refusals.count()), (KEPT, KEPT as u64 + 3));
        assert_eq!(last[0].cluster.as_deref(), Some("52"));
        assert_eq!(last[KEPT - 1].cluster.as_deref(), Some("3"));
    }

    #[tokio::test]
    async fn a_refusal_tells_each_reason_no_secret_and_not_more_than_enough() {
        let refused = refused(&"ä".repeat(10_000)).await;
        assert_eq!(refused.peer.as_deref(), Some("10.0.0.7:4711"));
        assert_eq!(
            refused.authenticators,
            [AuthenticatorReason {
                name: "transport".into(),
                reason: "rejected: the connection is not encrypted".into()
            }]
        );
        assert_eq!(
            refused.cluster.as_ref().unwrap().chars().count(),
            LONGEST + 1
        );
        assert!(!format!("{refused:?}").contains("secret-token"));
    }
}
