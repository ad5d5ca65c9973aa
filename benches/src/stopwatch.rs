//! Two clocks: the one on the wall, and that of the processor's work for this process.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Runs from its start until it is read.
pub struct Stopwatch {
    clock: Instant,
    processor: Duration,
}

/// What work took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// On the wall: with the time in which others had the processor, without that of helpers on another core.
    pub clock: Duration,
    /// Of the processor, in all threads of the process: what it costs, however busy the machine is.
    pub processor: Duration,
}

impl Stopwatch {
    /// Starts.
    #[must_use]
    pub fn start() -> Self {
        Self {
            clock: Instant::now(),
            processor: processor_time(),
        }
    }

    /// Since the start.
    #[must_use]
    pub fn read(&self) -> Taken {
        Taken {
            processor: processor_time().saturating_sub(self.processor),
            clock: self.clock.elapsed(),
        }
    }
}

fn processor_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ProcessCPUTime);
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    Duration::from_secs(part(tv_sec)) + Duration::from_nanos(part(tv_nsec))
}
