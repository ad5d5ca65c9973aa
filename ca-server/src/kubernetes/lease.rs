//! Who of several replicas acts by itself: the holder of a lease.
//!
//! As the cluster's own controllers do it: a record says who holds it and for how long, and whoever sees it unchanged for
//! that long by its own clock may take it. No clocks are compared. Leading means to be the one who rotates and writes;
//! **signing never depends on it**, and two who believe that they lead do no harm, because every write names what it
//! replaces or says the same.

use std::sync::Arc;
use std::time::Duration;

use ca_core::random_unit;
use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::call::{CallError, call};

/// How long a lease is good unless it is renewed.
const GOOD_FOR: Duration = Duration::from_secs(15);
/// How long the holder believes in it without having renewed it: less, so that it has stopped before another begins.
const BELIEVED_FOR: Duration = Duration::from_secs(10);
/// How often it is renewed, or looked at.
const PAUSE: Duration = Duration::from_secs(2);

/// Whether this process leads. Cheap to clone; all clones see the same.
#[derive(Clone, Debug)]
pub(crate) struct Leadership(watch::Receiver<Standing>);

/// How the election stands, as far as this process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) leads: bool,
    /// Who holds the lease.
    pub(crate) holder: Option<Arc<str>>,
    /// Why the last look or renewal failed.
    pub(crate) failure: Option<Arc<str>>,
}

impl Leadership {
    /// For a server that shares nothing.
    pub(crate) fn alone() -> Self {
        let leads = Standing {
            leads: true,
            ..Standing::default()
        };
        Self(watch::channel(leads).1)
    }

    /// Gained with `true`, lost with `false`.
    #[cfg(test)]
    pub(crate) fn given_by(sender: &watch::Sender<Standing>) -> Self {
        Self(sender.subscribe())
    }

    pub(crate) fn standing(&self) -> Standing {
        self.0.borrow().clone()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.0.borrow().leads
    }

    /// Waits until this process leads.
    pub(crate) async fn gained(&mut self) {
        self.until(true).await;
    }

    /// Waits until it does not.
    pub(crate) async fn lost(&mut self) {
        self.until(false).await;
    }

    async fn until(&mut self, leads: bool) {
        if self.0.wait_for(|now| now.leads == leads).await.is_err() {
            // Nobody is left who could change it.
            std::future::pending::<()>().await;
        }
    }
}

/// The candidate, which is the holder at times.
pub(crate) struct Candidate {
    api: Api<LeaseObject>,
    name: String,
    me: Arc<str>,
    standing: watch::Sender<Standing>,
    /// The record as it was seen last, and since when it has been that.
    seen: Option<(LeaseObject, Instant)>,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate")
            .field("name", &self.name)
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

impl Candidate {
    /// `pod` says for people who it is; two processes of one name are told apart all the same.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        pod: &str,
    ) -> (Self, Leadership) {
        let (standing, receiver) = watch::channel(Standing::default());
        let mark = (random_unit() * 4_294_967_296.0) as u32;
        let candidate = Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            me: format!("{pod}_{mark:08x}").into(),
            standing,
            seen: None,
        };
        (candidate, Leadership(receiver))
    }

    /// Stands for election until `end`, and then lets go.
    pub(crate) async fn run(mut self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        tokio::select! {
            () = self.stand() => {}
            () = &mut end => {}
        }
        if self.standing.borrow().leads {
            // First to act no more, then to let others.
            self.tell(false, None);
            let deadline = Instant::now() + PAUSE;
            let released = timeout_at(deadline, self.release()).await;
            if let Ok(Err(error)) = released {
                tracing::warn!("lease {} not released: {error}", self.name);
            }
        }
    }

    async fn stand(&mut self) {
        let mut good_until = Instant::now();
        loop {
            let asked = Instant::now();
            let leads = self.standing.borrow().leads;
            // Whoever leads stops in time, also when the API server keeps it waiting.
            let deadline = if leads {
                good_until
            } else {
                asked + BELIEVED_FOR
            };
            match timeout_at(deadline, self.hold()).await {
                Ok(Ok(true)) => {
                    good_until = asked + BELIEVED_FOR;
                    self.tell(true, None);
                }
                Ok(Ok(false)) => self.tell(false, None),
                Ok(Err(error)) => {
                    let still_good = leads && Instant::now() < good_until;
                    self.tell(still_good, Some(error.to_string()));
                }
                Err(_) => self.tell(false, Some("no answer in time".into())),
            }
            let next = asked + PAUSE.mul_f64(0.9 + 0.2 * random_unit());
            // A failure may leave less time than the pause.
            let next = match self.standing.borrow().leads {
                true => next.min(good_until),
                false => next.max(Instant::now() + PAUSE / 4),
            };
            sleep_until(next).await;
        }
    }

    /// Takes the lease or renews it, if that is ours to do; says whether it is ours.
    async fn hold(&mut self) -> Result<bool, CallError> {
        let Some(found) = call(self.api.get_opt(&self.name)).await? else {
            return self.create().await;
        };
        let now = Instant::now();
        let since = match &self.seen {
            Some((seen, since)) if seen.spec == found.spec => *since,
            _ => now,
        };
        self.seen = Some((found.clone(), since));
        let spec = found.spec.clone().unwrap_or_default();
        if !may_take(&spec, &self.me, now.duration_since(since)) {
            return Ok(false);
        }
        let taken = LeaseObject {
            spec: Some(next_record(&spec, &self.me, moment())),
            ..found
        };
        let params = PostParams::default();
        let replaced = self.api.replace(&self.name, &params, &taken);
        match call(replaced).await {
            Ok(held) => {
                self.seen = Some((held, now));
                Ok(true)
            }
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn create(&mut self) -> Result<bool, CallError> {
        let made = LeaseObject {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(next_record(&LeaseSpec::default(), &self.me, moment())),
        };
        match call(self.api.create(&PostParams::default(), &made)).await {
            Ok(held) => {
                self.seen = Some((held, Instant::now()));
                Ok(true)
            }
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&mut self) -> Result<(), CallError> {
        let Some((held, _)) = self.seen.take() else {
            return Ok(());
        };
        let spec = held.spec.clone().unwrap_or_default();
        let released = LeaseObject {
            spec: Some(LeaseSpec {
                holder_identity: None,
                lease_duration_seconds: Some(1),
                renew_time: Some(moment()),
                ..spec
            }),
            ..held
        };
        // By resource version: if it is not ours any more, it is not ours to release.
        let params = PostParams::default();
        let replaced = self.api.replace(&self.name, &params, &released);
        call(replaced).await.map(drop)
    }

    fn tell(&self, leads: bool, failure: Option<String>) {
        let holder = self.seen.as_ref().and_then(|(seen, _)| {
            let spec = seen.spec.as_ref()?;
            spec.holder_identity.as_deref().map(Arc::from)
        });
        let now = Standing {
            leads,
            holder,
            failure: failure.map(Arc::from),
        };
        self.standing.send_if_modified(|standing| {
            if standing.leads != now.leads {
                let gained = if now.leads { "gained" } else { "lost" };
                tracing::info!(lease = self.name, me = %self.me, "leadership {gained}");
            }
            if let Some(reason) = now
                .failure
                .as_deref()
                .filter(|_| standing.failure.is_none())
            {
                tracing::warn!(lease = self.name, "cannot be held or looked at: {reason}");
            }
            let is_new = *standing != now;
            *standing = now;
            is_new
        });
    }
}

/// Whether the lease is ours, or nobody's, or its holder has said nothing for `unchanged`, which is too long.
fn may_take(spec: &LeaseSpec, me: &str, unchanged: Duration) -> bool {
    let good_for = spec.lease_duration_seconds.map_or(GOOD_FOR, |seconds| {
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    });
    match spec.holder_identity.as_deref() {
        None | Some("") => true,
        Some(holder) => holder == me || unchanged > good_for,
    }
}

fn next_record(before: &LeaseSpec, me: &str, now: MicroTime) -> LeaseSpec {
    let is_ours = before.holder_identity.as_deref() == Some(me);
    let transitions = before.lease_transitions;
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(GOOD_FOR.as_secs()).ok(),
        acquire_time: before
            .acquire_time
            .clone()
            .filter(|_| is_ours)
            .or_else(|| Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: match (is_ours, transitions) {
            (true, count) => count,
            (false, None) => Some(0),
            (false, Some(count)) => Some(count.saturating_add(1)),
        },
        ..before.clone()
    }
}

/// For people who look at the record: nobody compares it with a clock.
fn moment() -> MicroTime {
    MicroTime(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        next_record(&LeaseSpec::default(), holder, moment())
    }

    #[test]
    fn a_lease_is_taken_when_it_is_nobodys_ours_or_was_silent_for_longer_than_it_is_good() {
        let silent = Duration::from_secs;
        assert!(may_take(&LeaseSpec::default(), "a", silent(0)));
        assert!(may_take(&held_by(""), "a", silent(0)));
        assert!(may_take(&held_by("a"), "a", silent(0)));
        assert!(!may_take(&held_by("b"), "a", silent(15)));
        assert!(may_take(&held_by("b"), "a", silent(16)));
        let odd = LeaseSpec {
            lease_duration_seconds: Some(-1),
            ..held_by("b")
        };
        assert!(may_take(&odd, "a", silent(1)));
    }

    #[test]
    fn a_renewal_keeps_the_time_of_taking_and_a_change_of_hands_is_counted() {
        let first = held_by("a");
        assert_eq!(first.lease_transitions, Some(0));
        let renewed = next_record(&first, "a", moment());
        assert_eq!(renewed.acquire_time, first.acquire_time);
        assert_eq!(renewed.lease_transitions, Some(0));
        let changed = next_record(&renewed, "b", moment());
        assert_eq!(changed.lease_transitions, Some(1));
        assert_eq!(changed.acquire_time, changed.renew_time);
        assert_eq!(changed.holder_identity.as_deref(), Some("b"));
    }

    #[tokio::test]
    async fn who_shares_nothing_leads_and_never_loses_it() {
        let mut alone = Leadership::alone();
        alone.gained().await;
        let lost = tokio::time::timeout(Duration::from_millis(10), alone.lost()).await;
        assert!(lost.is_err() && alone.is_held());
    }
}
