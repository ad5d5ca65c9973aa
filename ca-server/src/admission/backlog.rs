//! The queue before the queue: connections that have something to read, and wait for a thread to read it.
//!
//! Whoever is read late is answered late, or not any more: its client has gone, and all the work for it was in vain. So
//! what comes in late is turned away before anybody looks into it, which costs a fraction of an answer, until those who
//! come next are early again.

use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How many connections wait, and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Backlog(Arc<Shared>);

/// How late one connection is.
#[derive(Clone, Debug)]
pub(crate) struct Lateness {
    backlog: Backlog,
    own: Arc<Own>,
}

#[derive(Debug)]
struct Shared {
    /// Instants are counted from here, so that they fit into an atomic.
    begin: Instant,
    /// Below zero for a moment, when one is read before it is counted.
    waiting: AtomicIsize,
    turned_away: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    when: Option<Instant>,
    turned_away: u64,
}

#[derive(Debug, Default)]
struct Own {
    /// In microseconds since the begin.
    woken: AtomicU64,
    /// In microseconds; 0 unless many others wait too.
    late: AtomicU64,
}

impl Backlog {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            begin: Instant::now(),
            waiting: AtomicIsize::new(0),
            turned_away: AtomicU64::new(0),
            told: Mutex::default(),
        }))
    }

    pub(super) fn connection(&self) -> Lateness {
        Lateness {
            backlog: self.clone(),
            own: Arc::default(),
        }
    }

    pub(super) fn turned_away(&self) -> u64 {
        self.0.turned_away.load(Ordering::Relaxed)
    }

    /// Counts one. The log has one line each second for all of them.
    fn turn_away(&self) {
        let count = self.0.turned_away.fetch_add(1, Ordering::Relaxed) + 1;
        // Whoever comes while another tells need not.
        let Ok(mut told) = self.0.told.try_lock() else {
            return;
        };
        let now = Instant::now();
        if told.when.is_none_or(|when| now - when >= TELL_EVERY) {
            let requests = count - told.turned_away;
            tracing::warn!(requests, "too busy: turned away before they were read");
            *told = Told {
                when: Some(now),
                turned_away: count,
            };
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Lateness {
    /// The connection has something to read from now on.
    pub(crate) fn begin(&self) {
        self.own.woken.store(self.backlog.now(), Ordering::Relaxed);
    }

    /// It waits. **Always followed by [`polled`](Self::polled).**
    pub(crate) fn woken(&self) {
        self.backlog.0.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// It is read now, or never.
    pub(crate) fn polled(&self) {
        let waiting = self.backlog.0.waiting.fetch_sub(1, Ordering::Relaxed);
        // In a quiet house nobody is turned away, however slow the machine is.
        let late = if waiting > QUIET {
            let woken = self.own.woken.load(Ordering::Relaxed);
            self.backlog.now().saturating_sub(woken)
        } else {
            0
        };
        self.own.late.store(late, Ordering::Relaxed);
    }

    /// By how much it is late.
    pub(crate) fn late(&self) -> Option<Duration> {
        let late = self.own.late.load(Ordering::Relaxed);
        (late > 0).then(|| Duration::from_micros(late))
    }

    /// Counts a request that came too late.
    pub(crate) fn turn_away(&self) {
        self.backlog.turn_away();
    }
}

/// So many connections are read within milliseconds.
const QUIET: isize = 64;
const TELL_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_late_when_many_wait_and_never_in_a_quiet_house() {
        let backlog = Backlog::new();
        let one = backlog.connection();
        one.begin();
        one.woken();
        one.polled();
        assert_eq!(one.late(), None);
        let others: Vec<_> = (0..QUIET).map(|_| backlog.connection()).collect();
        for other in &others {
            other.begin();
            other.woken();
        }
        one.begin();
        one.woken();
        while backlog.now() == one.own.woken.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        one.polled();
        assert!(one.late().is_some());
        for other in &others {
            other.polled();
        }
        assert_eq!(others[0].late(), None);
        assert_eq!(backlog.0.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn each_that_is_turned_away_counts() {
        let backlog = Backlog::new();
        let one = backlog.connection();
        for _ in 0..10 {
            one.turn_away();
        }
        assert_eq!(backlog.turned_away(), 10);
    }
}
