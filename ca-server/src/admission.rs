//! Herd control: checking a request costs a core some 80 µs, so when a mesh starts at once, somebody must wait, and it
//! should not be the workload without any certificate.
//!
//! What comes in late because many do is turned away unread (`backlog`). While few requests are in the house, each is done
//! where it stands. When there are more, those that have been authenticated queue here for a thread of their own kind: as
//! many threads as cores, off the async ones. The queue is bounded, goes by [`Priority`], takes callers in turn, and forgets
//! who has gone.

use std::fmt;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use ca_auth::{Caller, Source};
use ca_core::Certificate;
use time::OffsetDateTime;
use tokio::sync::oneshot;

mod backlog;
mod queue;

use backlog::Backlog;
pub(crate) use backlog::Lateness;
use queue::{FairQueue, Refused};

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// Has no certificate to show: it may well have none.
    NoCertificate,
    /// Its certificate is in the last quarter of its life.
    Expiring,
    /// Everybody else has time.
    Routine,
}

impl Priority {
    /// Of a caller, by what it showed.
    pub(crate) fn of(caller: &Caller, shown: Option<&Certificate>, now: OffsetDateTime) -> Self {
        match (&caller.source, shown) {
            (Source::ClientCertificate { .. }, certificate) => Self::of_shown(certificate, now),
            _ => Self::NoCertificate,
        }
    }

    /// Of whoever shows `certificate`.
    fn of_shown(certificate: Option<&Certificate>, now: OffsetDateTime) -> Self {
        let Some(certificate) = certificate else {
            return Self::NoCertificate;
        };
        let life = certificate.not_after() - certificate.not_before();
        if certificate.not_after() - now < life / 4 {
            Self::Expiring
        } else {
            Self::Routine
        }
    }

    /// How late a request may come in to be read at all. That is before anybody knows who sends it: what its connection has
    /// `shown` must do.
    pub(crate) fn patience(shown: Option<&Certificate>, now: OffsetDateTime) -> Duration {
        RETRY_AFTER
            * match Self::of_shown(shown, now) {
                Self::Routine => 1,
                Self::Expiring => 2,
                Self::NoCertificate => 3,
            }
    }
}

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// In all. When it is full, whoever has the lowest priority is turned away.
    pub(crate) waiting: NonZeroUsize,
    /// Of one caller, so that one that has gone mad cannot fill the queue.
    pub(crate) waiting_of_one_caller: NonZeroUsize,
}

/// The threads and their queue. Cheap to clone; the threads end with the last clone.
#[derive(Clone)]
pub(crate) struct Admission(Arc<Owner>);

/// Dropped when nobody can bring work any more.
struct Owner(Arc<Shared>);

struct Shared {
    /// Requests that have been read and not answered.
    in_house: AtomicUsize,
    at_once: usize,
    /// Held for a push or a pop.
    queue: Mutex<State>,
    work: Condvar,
    backlog: Backlog,
}

struct State {
    queue: FairQueue<Job>,
    turned_away: u64,
    closed: bool,
}

struct Job {
    run: Box<dyn FnOnce() + Send>,
    /// Tells whoever waits for the job that it will not be done.
    turn_away: Box<dyn FnOnce() + Send>,
}

/// Why work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotDone {
    /// Too much is waiting already.
    #[error("too many requests are waiting")]
    TurnedAway,
    /// It panicked.
    #[error("the request made the server panic: this is a defect")]
    Panicked,
}

impl Admission {
    /// # Errors
    /// When the system has no thread.
    pub(crate) fn start(threads: NonZeroUsize, limits: Limits) -> std::io::Result<Self> {
        Self::start_with(threads, limits, AT_ONCE)
    }

    /// While fewer than `at_once` requests are in the house, each is done where it stands.
    fn start_with(threads: NonZeroUsize, limits: Limits, at_once: usize) -> std::io::Result<Self> {
        let queue = FairQueue::new(limits.waiting, limits.waiting_of_one_caller);
        let state = State {
            queue,
            turned_away: 0,
            closed: false,
        };
        let shared = Arc::new(Shared {
            in_house: AtomicUsize::new(0),
            at_once,
            queue: Mutex::new(state),
            work: Condvar::new(),
            backlog: Backlog::new(),
        });
        let owner = Owner(Arc::clone(&shared));
        for number in 0..threads.get() {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("sign-{number}"))
                .spawn(move || shared.work_off())?;
        }
        Ok(Self(Arc::new(owner)))
    }

    /// Counts a request from its arrival until what this returns is dropped.
    pub(crate) fn enter(&self) -> Entered {
        self.0.0.in_house.fetch_add(1, Ordering::Relaxed);
        Entered(Arc::clone(&self.0))
    }

    /// Has `work` done for `caller`. Dropping the future gives the place in the queue up.
    ///
    /// # Errors
    /// [`NotDone::TurnedAway`] at once or while waiting, when others of higher priority need the place.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        priority: Priority,
        caller: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        if self.0.0.is_quiet() {
            let done = std::panic::catch_unwind(AssertUnwindSafe(work));
            return done.map_err(|_| NotDone::Panicked);
        }
        let (sender, answer) = oneshot::channel();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let take = |sender: &Mutex<Option<oneshot::Sender<_>>>| {
            sender.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let for_work = Arc::clone(&sender);
        let job = Job {
            run: Box::new(move || {
                // Whoever has gone, with its connection or its deadline, needs no work.
                if let Some(sender) = take(&for_work).filter(|sender| !sender.is_closed()) {
                    drop(sender.send(Ok(work())));
                }
            }),
            turn_away: Box::new(move || {
                if let Some(sender) = take(&sender) {
                    drop(sender.send(Err(NotDone::TurnedAway)));
                }
            }),
        };
        self.0.0.push(priority, caller, job);
        // A job that panicked has dropped its sender.
        answer.await.unwrap_or(Err(NotDone::Panicked))
    }

    /// Counts a connection among those that wait to be read.
    pub(crate) fn connection(&self) -> Lateness {
        self.0.0.backlog.connection()
    }

    /// How many wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.0.0.state().queue.len()
    }

    /// How many have been turned away so far.
    pub(crate) fn turned_away(&self) -> u64 {
        self.0.0.state().turned_away + self.0.0.backlog.turned_away()
    }
}

/// A request that has been read and not answered.
pub(crate) struct Entered(Arc<Owner>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.in_house.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Nobody waits, and nobody will for long.
    fn is_quiet(&self) -> bool {
        self.in_house.load(Ordering::Relaxed) < self.at_once && self.state().queue.len() == 0
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing under the lock panics halfway through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, priority: Priority, caller: &str, job: Job) {
        let mut state = self.state();
        let loser = match state.queue.push(priority, caller, job) {
            Ok(loser) => loser,
            Err(Refused(job)) => Some(job),
        };
        state.turned_away += u64::from(loser.is_some());
        drop(state);
        self.work.notify_one();
        if let Some(loser) = loser {
            (loser.turn_away)();
        }
    }

    fn work_off(&self) {
        loop {
            let mut state = self.state();
            let job = loop {
                if let Some(job) = state.queue.pop() {
                    break job;
                }
                if state.closed {
                    return;
                }
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            // A panic costs the one who caused it its answer, and nobody the thread.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(job.run));
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.work.notify_all();
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admission({} waiting)", self.waiting())
    }
}

/// When to try again after having been turned away: about as long as a full queue takes to drain.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Whoever comes after so many waits for some milliseconds, and to change threads twice would cost each of them a quarter
/// of the work itself.
const AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn limits(waiting: usize, of_one: usize) -> Limits {
        Limits {
            waiting: waiting.try_into().unwrap(),
            waiting_of_one_caller: of_one.try_into().unwrap(),
        }
    }

    fn one_thread(limits: Limits) -> Admission {
        Admission::start_with(NonZeroUsize::MIN, limits, 0).unwrap()
    }

    /// Keeps the only thread busy until the sender is dropped.
    async fn hold(admission: &Admission) -> mpsc::Sender<()> {
        let (release, held) = mpsc::channel::<()>();
        let (started, start) = oneshot::channel();
        let holder = admission.clone();
        tokio::spawn(async move {
            let work = move || {
                let _ = started.send(());
                let _ = held.recv();
            };
            let _ = holder.run(Priority::NoCertificate, "holder", work).await;
        });
        start.await.unwrap();
        release
    }

    /// Queues a job that notes its name; returns when it is in the queue.
    async fn enqueue(
        admission: &Admission,
        priority: Priority,
        caller: &str,
        done: &mpsc::Sender<String>,
    ) -> tokio::task::JoinHandle<Result<(), NotDone>> {
        let (before, done) = (admission.waiting(), done.clone());
        let (own, name) = (admission.clone(), caller.to_owned());
        let turned_away = admission.turned_away();
        let task = tokio::spawn(async move {
            let note = name.clone();
            own.run(priority, &name, move || assert!(done.send(note).is_ok()))
                .await
        });
        while admission.waiting() == before && admission.turned_away() == turned_away {
            tokio::task::yield_now().await;
        }
        task
    }

    #[tokio::test]
    async fn in_a_quiet_house_work_is_done_where_it_stands_and_in_a_full_one_it_is_not() {
        let admission = Admission::start_with(NonZeroUsize::MIN, limits(10, 10), 2).unwrap();
        let here = std::thread::current().id();
        let thread = || std::thread::current().id();
        let first = admission.enter();
        assert_eq!(
            admission.run(Priority::Routine, "a", thread).await,
            Ok(here)
        );
        let second = admission.enter();
        assert_ne!(
            admission.run(Priority::Routine, "a", thread).await,
            Ok(here)
        );
        drop((first, second));
        assert_eq!(
            admission.run(Priority::Routine, "a", thread).await,
            Ok(here)
        );
        let panics = admission
            .run(Priority::Routine, "a", || -> u8 { panic!("a defect") })
            .await;
        assert_eq!(panics, Err(NotDone::Panicked));
    }

    #[tokio::test]
    async fn whoever_has_no_certificate_goes_first_and_callers_take_turns() {
        let admission = one_thread(limits(100, 10));
        let release = hold(&admission).await;
        let (done, order) = mpsc::channel();
        let mut tasks = Vec::new();
        for (priority, caller) in [
            (Priority::Routine, "r"),
            (Priority::Expiring, "e"),
            (Priority::NoCertificate, "greedy"),
            (Priority::NoCertificate, "greedy"),
            (Priority::NoCertificate, "greedy"),
            (Priority::NoCertificate, "modest"),
        ] {
            tasks.push(enqueue(&admission, priority, caller, &done).await);
        }
        drop(release);
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        drop(done);
        let order: Vec<_> = order.iter().collect();
        assert_eq!(order, ["greedy", "modest", "greedy", "greedy", "e", "r"]);
    }

    #[tokio::test]
    async fn a_full_queue_turns_away_the_lowest_and_a_mad_caller_only_itself() {
        let admission = one_thread(limits(3, 2));
        let release = hold(&admission).await;
        let (done, order) = mpsc::channel();
        let a = enqueue(&admission, Priority::Routine, "a", &done).await;
        let mad = enqueue(&admission, Priority::Expiring, "mad", &done).await;
        let mad_too = enqueue(&admission, Priority::Expiring, "mad", &done).await;
        // The third of one caller is too many, whatever is free.
        let third = enqueue(&admission, Priority::Expiring, "mad", &done).await;
        assert_eq!(third.await.unwrap(), Err(NotDone::TurnedAway));
        // The queue is full: one of equal priority must go away, one of higher takes the place of the lowest.
        let late = enqueue(&admission, Priority::Routine, "late", &done).await;
        assert_eq!(late.await.unwrap(), Err(NotDone::TurnedAway));
        let urgent = enqueue(&admission, Priority::NoCertificate, "urgent", &done).await;
        assert_eq!(a.await.unwrap(), Err(NotDone::TurnedAway));
        assert_eq!(admission.turned_away(), 3);
        drop(release);
        for task in [mad, mad_too, urgent] {
            task.await.unwrap().unwrap();
        }
        drop(done);
        assert_eq!(order.iter().collect::<Vec<_>>(), ["urgent", "mad", "mad"]);
    }

    #[tokio::test]
    async fn who_has_gone_costs_nothing() {
        let admission = one_thread(limits(10, 10));
        let release = hold(&admission).await;
        let (done, order) = mpsc::channel();
        let gone = enqueue(&admission, Priority::NoCertificate, "gone", &done).await;
        let stays = enqueue(&admission, Priority::NoCertificate, "stays", &done).await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        drop(release);
        stays.await.unwrap().unwrap();
        drop(done);
        assert_eq!(order.iter().collect::<Vec<_>>(), ["stays"]);
    }

    #[tokio::test]
    async fn a_panic_costs_nobody_the_thread() {
        let admission = one_thread(limits(10, 10));
        let panics = admission
            .run(Priority::Routine, "a", || -> u8 { panic!("a defect") })
            .await;
        assert_eq!(panics, Err(NotDone::Panicked));
        assert_eq!(admission.run(Priority::Routine, "a", || 7).await, Ok(7));
    }

    #[test]
    fn the_last_quarter_of_a_certificate_is_urgent() {
        let ca = ca_core::testing::TestCa::new("td");
        let now = ca_core::testing::now();
        let chain = ca
            .identity(&[ca.id("a", "b").into()], Duration::from_secs(4000), now)
            .1;
        let source = Source::ClientCertificate {
            serial: chain.leaf().serial(),
        };
        let caller = |source| Caller::new("test", source, ca.id("a", "b").into(), now);
        let of = |at| Priority::of(&caller(source.clone()), Some(chain.leaf()), at);
        assert_eq!(of(now), Priority::Routine);
        assert_eq!(of(now + Duration::from_secs(3500)), Priority::Expiring);
        let patience = |shown, at| Priority::patience(shown, at);
        assert_eq!(patience(Some(chain.leaf()), now), RETRY_AFTER);
        let late = now + Duration::from_secs(3500);
        assert_eq!(patience(Some(chain.leaf()), late), 2 * RETRY_AFTER);
        assert_eq!(patience(None, now), 3 * RETRY_AFTER);
        let token = caller(Source::Token { issuer: None });
        assert_eq!(Priority::of(&token, None, now), Priority::NoCertificate);
    }
}
