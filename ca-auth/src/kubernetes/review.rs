//! Asking an API server about a token.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use kube::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::follow::shown;
use super::review_cache::{ReviewCache, TokenHash};
use crate::caller::{Pod, ServiceAccount, SubjectError};
use crate::jwt::Audiences;

/// Asks one API server by `TokenReview`, and remembers what it said for moments.
pub(super) struct TokenReviewer {
    client: Client,
    audiences: Audiences,
    cache: ReviewCache<Result<Reviewed, ReviewRefusal>>,
    good_for: Duration,
    places: Semaphore,
    trouble: Mutex<Option<Trouble>>,
    counts: Counts,
}

/// Whom a token names, as the API server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reviewed {
    pub(super) account: ServiceAccount,
    pub(super) pod: Option<Pod>,
}

/// Until when nobody asks again, and why.
#[derive(Debug)]
struct Trouble {
    until: Instant,
    reason: Box<str>,
}

#[derive(Debug, Default)]
struct Counts {
    asked: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    remembered: AtomicU64,
}

/// What an API server has been asked about tokens since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReviewCounts {
    /// How many reviews were sent.
    pub asked: u64,
    /// How many of them said that the token is not good.
    pub refused: u64,
    /// How many of them had no answer.
    pub failed: u64,
    /// How many were not sent, because the same token was being asked about or had been a moment ago.
    pub remembered: u64,
}

/// Why a token that an API server was asked about is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewRefusal {
    /// It says so.
    #[error("the API server does not accept it: {reason}")]
    NotAuthenticated {
        /// In its words.
        reason: Box<str>,
    },
    /// An API server that does not look at audiences answers so, or a token for somebody else.
    #[error("the API server does not say that it is meant for us")]
    Audience,
    /// Users are no workloads.
    #[error("its bearer is not in the group {SERVICE_ACCOUNTS}")]
    Group,
    /// The user name is not that of a service account.
    #[error("its bearer: {0}")]
    Subject(#[from] SubjectError),
}

/// The API server gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("TokenReview: {0}")]
pub(super) struct NoAnswer(Box<str>);

/// Why nothing came of a review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotReviewed {
    Refused(ReviewRefusal),
    CouldNotAsk(NoAnswer),
}

impl TokenReviewer {
    /// Good answers are used for `good_for`; where it is zero, each one is used by those who asked at the same time.
    pub(super) fn new(client: Client, audiences: Audiences, good_for: Duration) -> Self {
        Self {
            client,
            audiences,
            cache: ReviewCache::new(CACHED, good_for),
            good_for,
            places: Semaphore::new(AT_ONCE),
            trouble: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// What the API server says of a token now, or said a moment ago.
    pub(super) async fn review(&self, token: &str) -> Result<Reviewed, NotReviewed> {
        let mut asked = false;
        let ask = async {
            asked = true;
            let verdict = self.ask(token).await?;
            let good_for = match verdict {
                Ok(_) => self.good_for,
                // A token may be too new for an API server that lags behind the one which made it.
                Err(_) => self.good_for.min(REFUSED_FOR),
            };
            Ok((verdict, good_for))
        };
        let answer = self.cache.answer(TokenHash::of(token), ask).await;
        if !asked {
            self.counts.remembered.fetch_add(1, Ordering::Relaxed);
        }
        match answer {
            Ok(verdict) => verdict.map_err(NotReviewed::Refused),
            Err(error) => Err(NotReviewed::CouldNotAsk(error)),
        }
    }

    async fn ask(&self, token: &str) -> Result<Result<Reviewed, ReviewRefusal>, NoAnswer> {
        self.check_trouble()?;
        let sent = async {
            // Nobody closes it.
            let _place = self.places.acquire().await;
            self.check_trouble()?;
            self.counts.asked.fetch_add(1, Ordering::Relaxed);
            self.send(token).await
        };
        let answer = match timeout(DEADLINE, sent).await {
            Ok(answer) => answer,
            Err(_) => Err(self.note_trouble("no answer in time".into(), REST)),
        };
        match &answer {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => _ = self.counts.refused.fetch_add(1, Ordering::Relaxed),
            Err(_) => _ = self.counts.failed.fetch_add(1, Ordering::Relaxed),
        }
        answer
    }

    async fn send(&self, token: &str) -> Result<Result<Reviewed, ReviewRefusal>, NoAnswer> {
        let review = Review {
            api_version: "authentication.k8s.io/v1",
            kind: "TokenReview",
            spec: ReviewSpec {
                token,
                audiences: self.audiences.names(),
            },
        };
        let body = serde_json::to_vec(&review).map_err(|_| NoAnswer("not encoded".into()))?;
        let request = Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|_| NoAnswer("not encoded".into()))?;
        // As text, because the library would log an answer that it cannot read, and the token is in it.
        match self.client.request_text(request).await {
            Ok(text) => match serde_json::from_str::<Answer>(&text) {
                Ok(answer) => Ok(judge(answer.status, &self.audiences)),
                Err(error) => Err(NoAnswer(
                    format!("the answer cannot be read (column {})", error.column()).into(),
                )),
            },
            Err(error) => {
                let rest = match &error {
                    // What is wrong with this request is no reason not to send others.
                    kube::Error::Api(status) if !is_trouble(status.code) => {
                        return Err(NoAnswer(shown(&error).into()));
                    }
                    kube::Error::Api(status) => status
                        .details
                        .as_ref()
                        .map(|details| Duration::from_secs(details.retry_after_seconds.into())),
                    _ => None,
                };
                let rest = rest.unwrap_or_default().clamp(REST, MAX_REST);
                Err(self.note_trouble(shown(&error), rest))
            }
        }
    }

    /// Who comes right after a failure does not wait for one of its own.
    fn check_trouble(&self) -> Result<(), NoAnswer> {
        let trouble = self.trouble.lock();
        match &*trouble.unwrap_or_else(PoisonError::into_inner) {
            Some(trouble) if Instant::now() < trouble.until => Err(NoAnswer(
                format!("not asked again so soon: {}", trouble.reason).into(),
            )),
            _ => Ok(()),
        }
    }

    fn note_trouble(&self, reason: String, rest: Duration) -> NoAnswer {
        let reason: Box<str> = reason.into();
        let trouble = self.trouble.lock();
        *trouble.unwrap_or_else(PoisonError::into_inner) = Some(Trouble {
            until: Instant::now() + rest,
            reason: reason.clone(),
        });
        NoAnswer(reason)
    }

    pub(super) fn counts(&self) -> ReviewCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ReviewCounts {
            asked: read(&self.counts.asked),
            refused: read(&self.counts.refused),
            failed: read(&self.counts.failed),
            remembered: read(&self.counts.remembered),
        }
    }
}

impl fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviewer")
            .field("audiences", &self.audiences)
            .field("good_for", &self.good_for)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// Our credentials are not accepted, there is too much to do, or something is broken: it is so for everybody.
fn is_trouble(code: u16) -> bool {
    matches!(code, 401 | 403 | 429 | 500..)
}

/// What an answer says of the bearer.
fn judge(status: Status, audiences: &Audiences) -> Result<Reviewed, ReviewRefusal> {
    // A review that fails is created like any other, with `error` and without `authenticated`.
    if !status.authenticated || !status.error.is_empty() {
        let reason = match &*status.error {
            "" => "it gives no reason".to_owned(),
            error => error.chars().take(200).collect(),
        };
        return Err(ReviewRefusal::NotAuthenticated {
            reason: reason.into(),
        });
    }
    if !status
        .audiences
        .iter()
        .any(|name| audiences.names().contains(name))
    {
        return Err(ReviewRefusal::Audience);
    }
    let user = status.user;
    if !user.groups.iter().any(|group| group == SERVICE_ACCOUNTS) {
        return Err(ReviewRefusal::Group);
    }
    let account = ServiceAccount::from_user_name(&user.username)?;
    let first = |key: &str| user.extra.get(key)?.first().filter(|text| !text.is_empty());
    let pod = first(POD_NAME).zip(first(POD_UID)).map(|(name, uid)| Pod {
        name: name.clone(),
        uid: uid.clone(),
    });
    Ok(Reviewed { account, pod })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: ReviewSpec<'a>,
}

#[derive(Serialize)]
struct ReviewSpec<'a> {
    token: &'a str,
    audiences: &'a [String],
}

/// Nothing but the status: the rest repeats the token.
#[derive(Deserialize)]
struct Answer {
    status: Status,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Status {
    authenticated: bool,
    error: String,
    audiences: Vec<String>,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// An agent gives up after 10 s.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many reviews are under way at once.
const AT_ONCE: usize = 64;
const CACHED: usize = 16 * 1024;
/// How long a token is refused without asking again.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// How long an API server in trouble is left alone; longer if it asks for it.
const REST: Duration = Duration::from_secs(1);
const MAX_REST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
