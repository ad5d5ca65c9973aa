//! Steady requests through both Envoys.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};

use super::backend::ANSWER;
use crate::interop::clock;
use crate::{http, wait};

const WORKERS: usize = 2;
/// Between two requests of a worker: the programs under test need the processor too.
const PAUSE: Duration = Duration::from_millis(3);

/// Requests that are under way.
#[derive(Default)]
pub(super) struct Load {
    stop: AtomicBool,
    answered: AtomicU64,
}

/// What came of them.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// The first one of each worker.
    pub(super) first_failures: Vec<String>,
    /// When the first of all failed.
    pub(super) failed_at: Option<SystemTime>,
    /// The longest time between two good answers to one worker.
    pub(super) longest_gap: Duration,
}

impl Load {
    /// Returns after so many more good answers.
    pub(super) fn goes_on(&self, answers: u64, limit: Duration) -> Result<()> {
        let answered = || self.answered.load(Ordering::Relaxed);
        let enough = answered() + answers;
        wait::until(&format!("{answers} more answers"), limit, || {
            Ok(match answered() {
                now if now >= enough => ControlFlow::Break(()),
                now => ControlFlow::Continue(format!("{} are missing", enough - now)),
            })
        })
    }
}

impl Tally {
    /// The one line of every scenario.
    pub(super) fn flawless(&self) -> Result<String> {
        let (requests, failures) = (self.requests, self.failures);
        ensure!(requests > 0, "no request was made");
        ensure!(
            failures == 0,
            "{failures} of {requests} requests failed: {}",
            self.first_failures.join("; ")
        );
        let gap = self.longest_gap.as_millis();
        Ok(format!("0 of {requests} failed, longest gap {gap} ms"))
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.first_failures.extend(other.first_failures);
        self.failed_at = self.failed_at.into_iter().chain(other.failed_at).min();
        self.longest_gap = self.longest_gap.max(other.longest_gap);
    }
}

/// What the workers counted while the body ran, and what it gave.
pub(super) fn under_load<T>(
    address: SocketAddr,
    body: impl FnOnce(&Load) -> Result<T>,
) -> Result<(T, Tally)> {
    let load = Load::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| scope.spawn(|| run(address, &load)))
            .collect();
        let result = body(&load);
        // Before the `?`: the scope ends only when the workers do.
        load.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for worker in workers {
            match worker.join() {
                Ok(part) => tally.add(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result.map(|value| (value, tally))
    })
}

/// Asks until told to stop; each request on a connection of its own.
fn run(address: SocketAddr, load: &Load) -> Tally {
    let mut tally = Tally::default();
    let started = Instant::now();
    let mut last_answer = started;
    while !load.stop.load(Ordering::Relaxed) {
        tally.requests += 1;
        let failure = match http::get(address, "/") {
            Ok(response) if response.status == 200 && response.body == ANSWER => None,
            Ok(response) => Some(format!("{} {}", response.status, response.body.trim_end())),
            Err(error) => Some(format!("{error:#}")),
        };
        let now = Instant::now();
        if let Some(failure) = failure {
            tally.failures += 1;
            if tally.first_failures.is_empty() {
                let at = (now - started).as_secs_f64();
                tally
                    .first_failures
                    .push(format!("after {at:.1} s: {failure}"));
                tally.failed_at = Some(clock::now());
            }
        } else {
            load.answered.fetch_add(1, Ordering::Relaxed);
            tally.longest_gap = tally.longest_gap.max(now - last_answer);
            last_answer = now;
        }
        if wait::pause(PAUSE).is_err() {
            break;
        }
    }
    tally.longest_gap = tally.longest_gap.max(last_answer.elapsed());
    tally
}
