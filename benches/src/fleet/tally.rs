//! What happened, second by second.

use std::collections::BTreeMap;
use std::time::Duration;

use super::failure::Failure;
use super::histogram::Histogram;
use super::tenths::Tenths;

/// Of one thread, or of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) seconds: Vec<Second>,
    /// What was issued in each tenth of a second.
    pub(crate) tenths: Tenths,
    pub(crate) failures: BTreeMap<Failure, u64>,
    /// Of the requests that failed: how long they waited for that.
    pub(crate) failed: Histogram,
    pub(crate) retries: u64,
    /// Connections that were made, for one request or to be kept.
    pub(crate) connections: u64,
}

/// One second of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Second {
    pub(crate) issued: Histogram,
    pub(crate) failed: u64,
}

impl Tally {
    /// A request that ended `at` after the start, and took `took`.
    pub(crate) fn add(&mut self, at: Duration, took: Duration, outcome: Result<(), Failure>) {
        let second = at.as_secs() as usize;
        if self.seconds.len() <= second {
            self.seconds.resize_with(second + 1, Second::default);
        }
        match outcome {
            Ok(()) => {
                self.seconds[second].issued.add(took);
                self.tenths.add(at, took);
            }
            Err(failure) => {
                self.seconds[second].failed += 1;
                *self.failures.entry(failure).or_default() += 1;
                self.failed.add(took);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if self.seconds.len() < other.seconds.len() {
            self.seconds
                .resize_with(other.seconds.len(), Second::default);
        }
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.issued.merge(&theirs.issued);
            mine.failed += theirs.failed;
        }
        self.tenths.merge(&other.tenths);
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        self.failed.merge(&other.failed);
        self.retries += other.retries;
        self.connections += other.connections;
    }

    /// How many requests have ended, well or not.
    pub(crate) fn ended(&self) -> u64 {
        self.issued().total() + self.failed.total()
    }

    /// Latencies of everything that was issued.
    pub(crate) fn issued(&self) -> Histogram {
        let mut all = Histogram::default();
        for second in &self.seconds {
            all.merge(&second.issued);
        }
        all
    }
}
