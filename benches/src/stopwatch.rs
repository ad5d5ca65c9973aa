//! Two clocks: the one on the wall, and that of the processor's work for this process.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

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
            processor: processor_time(ClockId::ProcessCPUTime),
        }
    }

    /// Since the start.
    #[must_use]
    pub fn read(&self) -> Taken {
        Taken {
            processor: processor_time(ClockId::ProcessCPUTime).saturating_sub(self.processor),
            clock: self.clock.elapsed(),
        }
    }
}

/// Of whom, `clock` says: the process, or the thread that asks.
pub(crate) fn processor_time(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}
