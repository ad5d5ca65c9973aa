//! How soon a change is looked at, and how often the files are looked at without one.

use std::time::Duration;

/// How [`FollowedFiles`](super::FollowedFiles) follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowOptions {
    pub(super) debounce: Duration,
    pub(super) max_debounce: Duration,
    pub(super) recheck: Duration,
}

impl FollowOptions {
    /// Looks when nothing has happened for 100 ms (as Istio does), at the latest 1 s after the first event, and every
    /// 60 s without any.
    pub fn new() -> Self {
        Self {
            debounce: Duration::from_millis(100),
            max_debounce: Duration::from_secs(1),
            recheck: Duration::from_secs(60),
        }
    }

    /// How long nothing may happen to the files before they are read: who writes several of them is not interrupted.
    #[must_use]
    pub fn debounce(mut self, quiet: Duration) -> Self {
        self.debounce = quiet;
        self
    }

    /// How long after the first event the files are read although events go on.
    #[must_use]
    pub fn max_debounce(mut self, limit: Duration) -> Self {
        self.max_debounce = limit;
        self
    }

    /// How often the files are read although nothing is known to have happened. All there is where the system sends no
    /// events: on some network file systems, and when its limits are reached.
    #[must_use]
    pub fn recheck(mut self, interval: Duration) -> Self {
        self.recheck = interval;
        self
    }
}

impl Default for FollowOptions {
    fn default() -> Self {
        Self::new()
    }
}
