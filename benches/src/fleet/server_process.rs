//! What a server on this machine costs: processor time and memory, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A process that is not ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerProcess(pub(crate) u32);

impl ServerProcess {
    /// Of the processor, so far, in all its threads.
    pub(crate) fn processor_time(self) -> Result<Duration> {
        let stat = self.read("stat")?;
        // Behind the name, which may hold anything, in brackets.
        let (_, rest) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let ticks = ticks(11)
            .zip(ticks(12))
            .context("no times in /proc/PID/stat")?;
        Ok(Duration::from_secs_f64(
            (ticks.0 + ticks.1) as f64 / rustix::param::clock_ticks_per_second() as f64,
        ))
    }

    /// Resident memory, in KiB.
    pub(crate) fn memory(self) -> Result<u64> {
        let status = self.read("status")?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .context("no memory in /proc/PID/status")
    }

    fn read(self, what: &str) -> Result<String> {
        let path = format!("/proc/{}/{what}", self.0);
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_has_memory_and_time() {
        let own = ServerProcess(std::process::id());
        assert!(own.memory().unwrap() > 100);
        own.processor_time().unwrap();
    }
}
