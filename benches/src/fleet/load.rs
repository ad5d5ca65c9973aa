//! The load itself: requests by a plan, each with a deadline, in one thread or several.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;

use super::connection::{Connection, ask};
use super::failure::Failure;
use super::schedule;
use super::tally::Tally;
use super::target::Target;
use super::workload::Workload;

/// When the next request is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival {
    /// So many are under way at any time.
    InFlight(usize),
    /// So many each second, whatever became of the others.
    Rate(f64),
    /// Everybody at the same moment.
    Once,
}

/// How to ask.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) arrival: Arrival,
    pub(crate) deadline: Duration,
    pub(crate) retries: u32,
    /// The share of requests on a connection of their own.
    pub(crate) fresh: f64,
    pub(crate) per_connection: usize,
}

/// One thread's part of the fleet.
pub(crate) struct Fleet {
    target: Target,
    plan: Plan,
    workloads: Vec<Workload>,
    /// One for `per_connection` workloads. Locked while it is opened, so that nobody opens a second.
    kept: Vec<AsyncMutex<Option<Connection>>>,
    timeout: HeaderValue,
    turn: AtomicUsize,
    under_way: AtomicUsize,
    /// From when outcomes count.
    recording: Mutex<Recording>,
}

#[derive(Default)]
struct Recording {
    since: Option<Instant>,
    tally: Tally,
}

impl Fleet {
    pub(crate) fn new(target: Target, plan: Plan, workloads: Vec<Workload>) -> Self {
        let kept = workloads.len().div_ceil(plan.per_connection);
        // Of gRPC: up to eight digits and a unit.
        let timeout = HeaderValue::from_str(&format!("{}m", plan.deadline.as_millis()))
            .unwrap_or(HeaderValue::from_static("5S"));
        Self {
            target,
            kept: (0..kept).map(|_| AsyncMutex::new(None)).collect(),
            timeout,
            turn: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            recording: Mutex::default(),
            plan,
            workloads,
        }
    }

    /// Forgets what was and counts from now on.
    pub(crate) fn start_recording(&self) {
        *self.recording() = Recording {
            since: Some(Instant::now()),
            tally: Tally::default(),
        };
    }

    pub(crate) fn tally(&self) -> Tally {
        self.recording().tally.clone()
    }

    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Opens the connections that are kept: so many at a time that the server is not stormed before the load begins.
    pub(crate) async fn connect(self: &Arc<Self>) {
        if self.plan.fresh >= 1.0 {
            return;
        }
        let mut opening = JoinSet::new();
        for number in 0..self.kept.len() {
            if opening.len() >= OPENED_AT_ONCE {
                opening.join_next().await;
            }
            let fleet = Arc::clone(self);
            // One that fails is opened by the first who needs it, who then fails and is counted.
            opening
                .spawn(async move { fleet.kept(number * fleet.plan.per_connection).await.is_ok() });
        }
        while opening.join_next().await.is_some() {}
    }

    /// Asks until `end`, then lets what is under way finish.
    pub(crate) async fn run(self: Arc<Self>, end: Arc<AtomicBool>) {
        match self.plan.arrival {
            Arrival::InFlight(count) => {
                let mut slots = JoinSet::new();
                for _ in 0..count {
                    let (fleet, end) = (Arc::clone(&self), Arc::clone(&end));
                    slots.spawn(async move {
                        while !end.load(Ordering::Relaxed) {
                            fleet.one(Instant::now()).await;
                        }
                    });
                }
                while slots.join_next().await.is_some() {}
            }
            Arrival::Rate(rate) => self.send_at(rate, end).await,
            Arrival::Once => {
                let now = Instant::now();
                let mut all = JoinSet::new();
                for _ in 0..self.workloads.len() {
                    let fleet = Arc::clone(&self);
                    all.spawn(async move { fleet.one(now).await });
                }
                while all.join_next().await.is_some() {}
            }
        }
    }

    /// Latencies count from the moment a request is due: one that leaves late because of us, or of the server, has
    /// waited for that too.
    async fn send_at(self: &Arc<Self>, rate: f64, end: Arc<AtomicBool>) {
        let (mut moments, mut under_way) = (schedule::due(rate, end), JoinSet::new());
        while let Some(due) = moments.recv().await {
            let fleet = Arc::clone(self);
            under_way.spawn(async move { fleet.one(due).await });
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
    }

    /// One request of whoever's turn it is.
    async fn one(&self, due: Instant) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let number = turn % self.workloads.len();
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let mut retries = 0;
        let outcome = loop {
            let left = self.plan.deadline.saturating_sub(due.elapsed());
            let attempt = async {
                if is_fresh(turn, self.plan.fresh) {
                    self.ask_once(number).await
                } else {
                    self.ask(number).await
                }
            };
            let outcome = match tokio::time::timeout(left, attempt).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure::Deadline),
            };
            match outcome {
                Err(failure) if failure.is_retryable() && retries < self.plan.retries => {
                    retries += 1;
                    tokio::time::sleep(RETRY_AFTER * retries).await;
                }
                outcome => break outcome,
            }
        };
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut recording = self.recording();
        recording.tally.retries += u64::from(retries);
        // What began before the recording tells of the time before it.
        if let Some(since) = recording.since.filter(|since| due >= *since) {
            recording.tally.add(now - since, now - due, outcome);
        }
    }

    async fn ask(&self, number: usize) -> Result<(), Failure> {
        let sender = self.kept(number).await?;
        let prepared = &self.workloads[number].prepared;
        ask(sender, &self.target, prepared, &self.timeout).await?;
        Ok(())
    }

    async fn ask_once(&self, number: usize) -> Result<(), Failure> {
        let connection = self.open(number).await?;
        let prepared = &self.workloads[number].prepared;
        ask(connection.sender(), &self.target, prepared, &self.timeout).await?;
        Ok(())
    }

    /// A handle to the connection that this workload keeps; a new one when it has ended.
    async fn kept(&self, number: usize) -> Result<h2::client::SendRequest<bytes::Bytes>, Failure> {
        let mut kept = self.kept[number / self.plan.per_connection].lock().await;
        match &*kept {
            Some(connection) if !connection.has_ended() => Ok(connection.sender()),
            _ => {
                let connection = self.open(number).await?;
                Ok(kept.insert(connection).sender())
            }
        }
    }

    async fn open(&self, number: usize) -> Result<Connection, Failure> {
        let tls = Arc::clone(&self.workloads[number].tls);
        self.recording().tally.connections += 1;
        Connection::open(&self.target, tls).await
    }

    /// Held for a few lines that cannot panic.
    fn recording(&self) -> std::sync::MutexGuard<'_, Recording> {
        self.recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spread evenly over the turns.
fn is_fresh(turn: usize, share: f64) -> bool {
    let before = (turn as f64 * share).floor();
    ((turn + 1) as f64 * share).floor() > before
}

const OPENED_AT_ONCE: usize = 64;
const RETRY_AFTER: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_connections_are_spread_over_the_turns() {
        let of_first = |share, count| (0..count).filter(|turn| is_fresh(*turn, share)).count();
        assert_eq!(of_first(0.0, 1000), 0);
        assert_eq!(of_first(1.0, 1000), 1000);
        assert_eq!(of_first(0.25, 1000), 250);
        assert_eq!(of_first(0.25, 100), 25);
    }
}
