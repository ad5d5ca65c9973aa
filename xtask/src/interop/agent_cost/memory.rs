//! What the system knows about a process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::fs;

use anyhow::{Context as _, Result};

use super::Bytes;
use crate::process::Process;

/// In bytes.
pub(super) struct Memory {
    /// All that is in memory, the program's own pages too.
    pub(super) resident: u64,
    /// What it has made itself.
    own: u64,
}

impl Memory {
    pub(super) fn of(process: &Process) -> Result<Self> {
        let path = format!("/proc/{}/status", process.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(Self {
            resident: number(&status, "VmRSS:")? * 1024,
            own: number(&status, "RssAnon:")? * 1024,
        })
    }
}

impl Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} resident, {} of it its own",
            Bytes(self.resident),
            Bytes(self.own)
        )
    }
}

/// How often each of its threads has waited for something so far.
pub(super) struct Waits(BTreeMap<OsString, u64>);

impl Waits {
    pub(super) fn of(process: &Process) -> Result<Self> {
        let folder = format!("/proc/{}/task", process.id());
        let mut waits = BTreeMap::new();
        for thread in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
            let thread = thread.context("cannot list threads")?;
            let path = thread.path().join("status");
            let status = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let count = number(&status, "voluntary_ctxt_switches:")?;
            waits.insert(thread.file_name(), count);
        }
        Ok(Self(waits))
    }

    /// How often a thread has woken up since then. One that has ended did so once.
    pub(super) fn since(&self, then: &Self) -> u64 {
        let ended = then.0.keys().filter(|thread| !self.0.contains_key(*thread));
        let waits = self.0.iter().map(|(thread, count)| {
            let before = then.0.get(thread).copied().unwrap_or_default();
            count.saturating_sub(before)
        });
        waits.sum::<u64>() + ended.count() as u64
    }
}

fn number(status: &str, label: &str) -> Result<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(label))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("no {label} there"))
}
