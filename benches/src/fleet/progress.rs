//! What is seen on the terminal meanwhile.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::Duration;

use super::summary::milliseconds;
use super::tally::Tally;

/// One line that is written over, or one every few seconds where nobody watches.
#[derive(Debug)]
pub(crate) struct Progress {
    watched: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            watched: stderr().is_terminal(),
        }
    }

    /// About the last full second.
    pub(crate) fn show(&self, at: Duration, tally: &Tally, under_way: usize) {
        let second = at.as_secs();
        if !self.watched && !second.is_multiple_of(UNWATCHED_EVERY) {
            return;
        }
        let Some(last) = tally.seconds.iter().rev().nth(1) else {
            return;
        };
        let at = |share| last.issued.quantile(share).map_or(0.0, milliseconds);
        let line = format!(
            "{second:>4} s  {:>6}/s  p50 {:>6.2}  p99 {:>6.2} ms  under way {under_way:>5}  failed {}",
            last.issued.total(),
            at(0.5),
            at(0.99),
            tally.failed.total()
        );
        // A terminal that is gone is no reason to stop.
        let _ = if self.watched {
            write!(stderr(), "\r\x1b[K{line}").and_then(|()| stderr().flush())
        } else {
            writeln!(stderr(), "{line}")
        };
    }

    /// The line is kept as it is.
    pub(crate) fn end(&self) {
        if self.watched {
            let _ = writeln!(stderr());
        }
    }
}

const UNWATCHED_EVERY: u64 = 5;
