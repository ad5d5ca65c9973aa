//! The pods and service accounts of a cluster, kept current by one watch each.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kube::api::ApiResource;
use kube::{Api, Client};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::follow::{News, follow};
use super::workloads::{NotKnown, Standing, WatchedAccount, WatchedPod, Workloads};
use crate::caller::{Pod, ServiceAccount};
use crate::jwt::Bound;
use crate::kubernetes::node_proxy::NodeProxyRefusal;

/// Follows a cluster for as long as it is held.
pub(super) struct WorkloadIndex {
    known: Arc<Known>,
    tasks: [AbortHandle; 2],
}

/// What is known, and as of when.
struct Known {
    cluster: Arc<str>,
    /// Held for a look-up or one piece of news.
    workloads: RwLock<Workloads>,
    contact: watch::Sender<Contact>,
}

/// When each watch was last heard of.
#[derive(Clone, Debug, Default)]
struct Contact {
    pods: Heard,
    accounts: Heard,
}

#[derive(Clone, Debug, Default)]
struct Heard {
    /// `None` before the first list.
    at: Option<Instant>,
    /// Why nothing is heard, if so.
    failure: Option<Box<str>>,
}

/// How it goes with an index.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexStatus {
    /// How many pods it knows.
    pub pods: usize,
    /// How many service accounts it knows.
    pub service_accounts: usize,
    /// How long ago the API server was last heard of; `None` as long as not everything has been listed.
    pub age: Option<Duration>,
    /// Why it cannot be asked at the moment, if so.
    pub failure: Option<Box<str>>,
}

impl WorkloadIndex {
    /// Starts to follow. Nobody waits for the first list.
    pub(super) fn start(client: &Client, cluster: Arc<str>) -> Self {
        let known = Arc::new(Known {
            cluster,
            workloads: RwLock::default(),
            contact: watch::Sender::default(),
        });
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let pods = Api::<WatchedPod>::all_with(client.clone(), &resource);
        let accounts = Api::<WatchedAccount>::all(client.clone());
        let pods = {
            let known = Arc::clone(&known);
            tokio::spawn(async move { follow(pods, None, |news| known.hear_of_pods(news)).await })
        };
        let accounts = {
            let known = Arc::clone(&known);
            tokio::spawn(async move {
                follow(accounts, None, |news| known.hear_of_accounts(news)).await;
            })
        };
        Self {
            known,
            tasks: [pods.abort_handle(), accounts.abort_handle()],
        }
    }

    /// Whether what a token speaks of is there, and how long ago that was so.
    pub(super) fn standing(
        &self,
        account: &ServiceAccount,
        pod: Option<&Pod>,
        bound: &Bound,
        now: OffsetDateTime,
    ) -> (Standing, Duration) {
        let Some(age) = self.age() else {
            return (Standing::Unknown(NotKnown::NothingYet), Duration::ZERO);
        };
        let workloads = self.known.workloads.read();
        let workloads = workloads.unwrap_or_else(PoisonError::into_inner);
        (workloads.standing(account, pod, bound, now), age)
    }

    /// As [`Workloads::share_a_node`], as long as what is known is not older than `max_age`.
    pub(super) fn share_a_node(
        &self,
        caller: &ServiceAccount,
        pod: &Pod,
        wanted: &ServiceAccount,
        max_age: Duration,
    ) -> Result<(), NodeProxyRefusal> {
        match self.age() {
            None => return Err(NodeProxyRefusal::NothingKnown),
            Some(age) if age > max_age => return Err(NodeProxyRefusal::TooOld { age }),
            Some(_) => {}
        }
        let workloads = self.known.workloads.read();
        let workloads = workloads.unwrap_or_else(PoisonError::into_inner);
        workloads.share_a_node(caller, pod, wanted)
    }

    /// How long ago the one that was heard of less recently was; `None` before both have listed everything.
    fn age(&self) -> Option<Duration> {
        let contact = self.known.contact.borrow();
        Some(contact.pods.at?.min(contact.accounts.at?).elapsed())
    }

    /// Waits until everything has been listed.
    pub(super) async fn synced(&self) {
        let mut contact = self.known.contact.subscribe();
        let both = |contact: &Contact| contact.pods.at.is_some() && contact.accounts.at.is_some();
        // The sender lives as long as we do.
        let _ = contact.wait_for(both).await;
    }

    pub(super) fn status(&self) -> IndexStatus {
        let age = self.age();
        let workloads = self.known.workloads.read();
        let workloads = workloads.unwrap_or_else(PoisonError::into_inner);
        let contact = self.known.contact.borrow();
        let failure = contact.pods.failure.as_ref();
        IndexStatus {
            pods: workloads.pod_count(),
            service_accounts: workloads.account_count(),
            age,
            failure: failure.or(contact.accounts.failure.as_ref()).cloned(),
        }
    }
}

impl Drop for WorkloadIndex {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl fmt::Debug for WorkloadIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadIndex")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Known {
    fn hear_of_pods(&self, news: News<WatchedPod>) {
        let lost = self.take(news, |workloads, news| match news {
            News::All(all) => workloads.all_pods(all),
            News::Applied(pod) => workloads.apply_pod(pod),
            News::Deleted(pod) => workloads.delete_pod(pod),
            News::Alive | News::Lost(_) => {}
        });
        self.heard("pods", lost, |contact| &mut contact.pods);
    }

    fn hear_of_accounts(&self, news: News<WatchedAccount>) {
        let lost = self.take(news, |workloads, news| match news {
            News::All(all) => workloads.all_accounts(all),
            News::Applied(account) => workloads.apply_account(account),
            News::Deleted(account) => workloads.delete_account(account),
            News::Alive | News::Lost(_) => {}
        });
        self.heard("service accounts", lost, |contact| &mut contact.accounts);
    }

    /// Why nothing is heard, if that is the news.
    fn take<K>(
        &self,
        news: News<K>,
        apply: impl FnOnce(&mut Workloads, News<K>),
    ) -> Option<String> {
        match news {
            News::Lost(reason) => Some(reason),
            News::Alive => None,
            news => {
                let workloads = self.workloads.write();
                apply(&mut workloads.unwrap_or_else(PoisonError::into_inner), news);
                None
            }
        }
    }

    /// After what is heard has been taken in: who sees the new time sees the news as well.
    fn heard(
        &self,
        what: &'static str,
        lost: Option<String>,
        of: impl FnOnce(&mut Contact) -> &mut Heard,
    ) {
        let cluster = &self.cluster;
        self.contact.send_modify(|contact| {
            let heard = of(contact);
            match lost {
                Some(reason) => {
                    // Once for each reason: it is tried again every few seconds.
                    if heard.failure.as_deref() != Some(&*reason) {
                        tracing::warn!(%cluster, "{what} cannot be watched: {reason}");
                    }
                    heard.failure = Some(reason.into());
                }
                None => {
                    if heard.at.is_none() || heard.failure.is_some() {
                        tracing::info!(%cluster, "{what} are watched");
                    }
                    heard.failure = None;
                    heard.at = Some(Instant::now());
                }
            }
        });
    }
}
