//! What wakes the thread: something may have changed, or nobody listens any more.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Bell {
    /// Held for a few instructions only, never while files are read.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rung: bool,
    stopped: bool,
}

/// Why a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    Rung,
    TimedOut,
    Stopped,
}

impl Bell {
    /// Many rings before one wait are one ring.
    pub(super) fn ring(&self) {
        self.lock().rung = true;
        self.changed.notify_all();
    }

    /// For good.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn wait(&self, timeout: Duration) -> Wake {
        let (mut state, _) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |s| !s.rung && !s.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            Wake::Stopped
        } else if std::mem::take(&mut state.rung) {
            Wake::Rung
        } else {
            Wake::TimedOut
        }
    }

    /// Waits until nothing has rung for `quiet`, but no longer than `limit`: a bell that never falls silent must not
    /// keep us from looking.
    pub(super) fn settle(&self, quiet: Duration, limit: Duration) -> Wake {
        let start = Instant::now();
        loop {
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Wake::TimedOut;
            }
            match self.wait(quiet.min(left)) {
                Wake::Rung => {}
                ended => return ended,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
