//! Steady requests through both Envoys.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::backend::ANSWER;
use crate::{http, wait};

/// Between two requests of a worker: the programs under test need the processor too.
const PAUSE: Duration = Duration::from_millis(3);

#[derive(Default)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// The first one of each worker.
    pub(super) first_failures: Vec<String>,
    /// The longest time between two good answers to one worker.
    pub(super) longest_gap: Duration,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.first_failures.extend(other.first_failures);
        self.longest_gap = self.longest_gap.max(other.longest_gap);
    }
}

/// Asks until told to stop; each request on a connection of its own.
pub(super) fn run(address: SocketAddr, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let started = Instant::now();
    let mut last_answer = started;
    while !stop.load(Ordering::Relaxed) {
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
            }
        } else {
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
