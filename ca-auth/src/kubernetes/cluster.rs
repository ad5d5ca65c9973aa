//! One cluster: whether a token is its, and still good.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ca_core::TrustDomain;
use kube::Client;
use time::OffsetDateTime;

use super::cluster_keys::follow_keys;
use super::node_proxy::NodeProxyRefusal;
use super::review::{NotReviewed, ReviewCounts, Reviewed, TokenReviewer};
use super::workload_index::{IndexStatus, WorkloadIndex};
use super::workloads::{NotKnown, Standing};
use crate::authenticator::{AuthnError, Reason};
use crate::caller::{Caller, Identities, Pod, ServiceAccount, Source};
use crate::jwt::{Audiences, ClaimedToken, JwtAuthenticator, TokenError, VerifiedToken};
use crate::key_source::{KeySource as _, KeyStatus};
use crate::remote_keys::{KeySchedule, RemoteKeys};

/// A cluster whose service accounts are believed. Follows it for as long as it is held.
///
/// A token is judged with what is at hand: the published keys of the cluster, and a watch that knows its pods and service
/// accounts. Its API server is asked, by `TokenReview`, about a token that these cannot tell of: one with an unknown key or
/// of another issuer, one that is bound to something new or to something that is not watched, and any while the watch
/// has not been heard of for [`FRESH`](Self::FRESH).
///
/// | API server | a token whose pod or service account has been deleted is refused |
/// |---|---|
/// | is there | as soon as the watch tells |
/// | is there, the watch is silent | after [`FRESH`](Self::FRESH), the seconds that the API server itself remembers a token, and [`review_cache`](ClusterConfig::review_cache) |
/// | cannot be asked | after [`max_staleness`](ClusterConfig::max_staleness), with all other tokens |
pub struct Cluster {
    id: Arc<str>,
    trust_domain: TrustDomain,
    audiences: Audiences,
    clock_skew: time::Duration,
    max_staleness: Duration,
    /// `None` where every token is reviewed.
    local: Option<Local>,
    /// `None` where nobody needs it.
    index: Option<WorkloadIndex>,
    reviewer: TokenReviewer,
}

#[derive(Debug)]
struct Local {
    jwt: JwtAuthenticator,
    keys: Arc<RemoteKeys>,
}

/// How the tokens of a cluster are judged.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The mesh whose names its service accounts get.
    pub trust_domain: TrustDomain,
    /// Of which a token must have one.
    pub audiences: Audiences,
    /// How far the clock of the cluster may be off.
    pub clock_skew: Duration,
    /// Where a token is verified.
    pub judgement: Judgement,
    /// When the cluster is asked for its keys.
    pub keys: KeySchedule,
    /// How long a good answer about a token is used again; zero for never.
    pub review_cache: Duration,
    /// How old what is known of pods and service accounts may be when the API server cannot be asked.
    pub max_staleness: Duration,
    /// Whether its pods must be known although no token needs it, for node proxies.
    pub knows_pods: bool,
}

/// Where a token is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Judgement {
    /// Here. The API server is asked about what cannot be told here.
    #[default]
    Local,
    /// By the API server, each of them.
    Review,
}

/// How it goes with a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// What its callers name.
    pub id: Arc<str>,
    /// The issuer of its tokens, as far as known.
    pub issuer: Option<String>,
    /// The keys of its tokens, where they are verified here.
    pub keys: Option<KeyStatus>,
    /// What is known of its pods, where somebody needs it.
    pub index: Option<IndexStatus>,
    /// What its API server has been asked.
    pub reviews: ReviewCounts,
}

impl Cluster {
    /// How long the watch of an API server may be silent before tokens are reviewed again. An idle one is heard of every
    /// 30 s.
    pub const FRESH: Duration = Duration::from_secs(60);

    /// Starts to follow a cluster. Nobody is waited for.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(id: impl Into<Arc<str>>, client: &Client, config: ClusterConfig) -> Self {
        let id = id.into();
        let local = (config.judgement == Judgement::Local).then(|| {
            let keys = Arc::new(follow_keys(client.clone(), &id, config.keys));
            let audiences = config.audiences.clone();
            let jwt =
                JwtAuthenticator::new(config.trust_domain.clone(), Arc::clone(&keys), audiences)
                    .with_clock_skew(config.clock_skew);
            Local { jwt, keys }
        });
        let is_watched = local.is_some() || config.knows_pods;
        let index = is_watched.then(|| WorkloadIndex::start(client, Arc::clone(&id)));
        let clock_skew = time::Duration::try_from(config.clock_skew);
        let clock_skew = clock_skew.unwrap_or(JwtAuthenticator::MAX_CLOCK_SKEW);
        Self {
            reviewer: TokenReviewer::new(
                client.clone(),
                config.audiences.clone(),
                config.review_cache,
            ),
            id,
            trust_domain: config.trust_domain,
            audiences: config.audiences,
            clock_skew: clock_skew.min(JwtAuthenticator::MAX_CLOCK_SKEW),
            max_staleness: config.max_staleness,
            local,
            index,
        }
    }

    /// What its callers name in their requests.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Waits until the pods and service accounts are known, where somebody needs them: **for as long as the API server is
    /// away**.
    pub async fn synced(&self) {
        if let Some(index) = &self.index {
            index.synced().await;
        }
    }

    /// Whether [`synced`](Self::synced) would not wait.
    pub(super) fn is_synced(&self) -> bool {
        self.index
            .as_ref()
            .is_none_or(|index| index.status().age.is_some())
    }

    /// How it goes. Cheap: nobody is asked.
    pub fn status(&self) -> ClusterStatus {
        ClusterStatus {
            id: Arc::clone(&self.id),
            issuer: self.local.as_ref().and_then(|local| local.keys.issuer()),
            keys: self.local.as_ref().map(|local| local.keys.status()),
            index: self.index.as_ref().map(WorkloadIndex::status),
            reviews: self.reviewer.counts(),
        }
    }

    /// Judges a token.
    pub(super) async fn judge(
        &self,
        token: &str,
        now: OffsetDateTime,
    ) -> Result<Caller, AuthnError> {
        let Some(local) = &self.local else {
            return self.review(token, now).await.map_err(AuthnError::from);
        };
        let verified = match local.jwt.verified(token, now).await {
            Ok(verified) => verified,
            Err(error) if error.is_for_the_issuer_to_judge() => {
                let reviewed = self.review(token, now).await;
                return reviewed.map_err(|review| review.after(&error));
            }
            Err(error) => return Err(AuthnError::Rejected(error.into())),
        };
        match self.next_step(&verified, now) {
            Next::Accept => Ok(self.own(verified.caller)),
            Next::Refuse(reason) => Err(AuthnError::Rejected(reason)),
            Next::Ask(reason) => {
                let reviewed = self.review(token, now).await;
                reviewed.map_err(|review| review.after(&reason))
            }
            Next::AskIfPossible => match self.review(token, now).await {
                Err(Unreviewed::CouldNotAsk(_)) => Ok(self.own(verified.caller)),
                reviewed => reviewed.map_err(AuthnError::from),
            },
        }
    }

    fn next_step(&self, verified: &VerifiedToken, now: OffsetDateTime) -> Next {
        let caller = &verified.caller;
        let (Some(index), Some(account)) = (&self.index, &caller.service_account) else {
            return Next::Ask(NotKnown::NothingYet);
        };
        let (standing, age) = index.standing(account, caller.pod.as_ref(), &verified.bound, now);
        decide(standing, age, self.max_staleness)
    }

    /// Asks about a token, unless what it says of itself is reason enough to refuse it.
    async fn review(&self, token: &str, now: OffsetDateTime) -> Result<Caller, Unreviewed> {
        let claimed = ClaimedToken::read(token, &self.audiences, self.clock_skew, now);
        let claimed = claimed.map_err(|error| Unreviewed::Refused(error.into()))?;
        let Reviewed { account, pod } = match self.reviewer.review(token).await {
            Ok(reviewed) => reviewed,
            Err(NotReviewed::Refused(refusal)) => return Err(Unreviewed::Refused(refusal.into())),
            Err(NotReviewed::CouldNotAsk(cause)) => {
                return Err(Unreviewed::CouldNotAsk(cause.into()));
            }
        };
        let identity = account.identity(&self.trust_domain);
        let identity =
            identity.map_err(|error| Unreviewed::Refused(TokenError::Identity(error).into()))?;
        // Who has accepted the token has looked at its issuer and its end.
        let source = Source::Token {
            issuer: claimed.issuer,
        };
        let mut caller = Caller::new(NAME, source, Identities::from(identity), claimed.expires);
        caller.service_account = Some(account);
        caller.pod = pod;
        Ok(self.own(caller))
    }

    fn own(&self, mut caller: Caller) -> Caller {
        caller.authenticator = NAME;
        caller.cluster = Some(Arc::clone(&self.id));
        caller
    }

    /// Whether `wanted` is the service account of a pod on the node of the caller's pod.
    pub(super) fn share_a_node(
        &self,
        caller: &ServiceAccount,
        pod: &Pod,
        wanted: &ServiceAccount,
    ) -> Result<(), NodeProxyRefusal> {
        let index = self.index.as_ref().ok_or(NodeProxyRefusal::NothingKnown)?;
        index.share_a_node(caller, pod, wanted, self.max_staleness)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("id", &self.id)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// What to do with a token whose signature is good.
#[derive(Debug)]
enum Next {
    Accept,
    Refuse(Reason),
    Ask(NotKnown),
    /// And accept where nobody answers.
    AskIfPossible,
}

/// What was true `age` ago decides what to do now. What is gone never comes back, however old the news.
fn decide(standing: Standing, age: Duration, max_staleness: Duration) -> Next {
    match standing {
        Standing::Gone(gone) => Next::Refuse(gone.into()),
        Standing::Unknown(what) => Next::Ask(what),
        Standing::Alive if age <= Cluster::FRESH.min(max_staleness) => Next::Accept,
        Standing::Alive if age <= max_staleness => Next::AskIfPossible,
        Standing::Alive => Next::Ask(NotKnown::TooOld),
    }
}

/// Why nothing came of a review.
#[derive(Debug)]
enum Unreviewed {
    Refused(Reason),
    CouldNotAsk(Reason),
}

impl Unreviewed {
    /// With the reason why it was asked for.
    fn after(self, why: &dyn fmt::Display) -> AuthnError {
        match self {
            Self::Refused(reason) => AuthnError::Rejected(format!("{why}; {reason}").into()),
            Self::CouldNotAsk(reason) => AuthnError::CouldNotAsk(format!("{why}; {reason}").into()),
        }
    }
}

impl From<Unreviewed> for AuthnError {
    fn from(unreviewed: Unreviewed) -> Self {
        match unreviewed {
            Unreviewed::Refused(reason) => Self::Rejected(reason),
            Unreviewed::CouldNotAsk(reason) => Self::CouldNotAsk(reason),
        }
    }
}

pub(super) const NAME: &str = "kubernetes";

#[cfg(test)]
mod tests;
