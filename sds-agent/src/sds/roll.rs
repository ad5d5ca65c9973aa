//! Who is connected and what each has got, for people who ask.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use time::OffsetDateTime;

use super::ledger::{Ledger, Verdict};
use crate::secrets::{SecretName, Version};

/// All open streams. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roll(Arc<Mutex<BTreeMap<u64, Record>>>);

/// What is known about one stream.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Which way of discovery it speaks.
    pub(crate) protocol: &'static str,
    pub(crate) opened: OffsetDateTime,
    /// Who is at the other end, once it has said so.
    pub(crate) node: String,
    /// What it wants.
    pub(crate) secrets: Vec<Wish>,
}

/// One secret that a client wants.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) name: SecretName,
    /// What was sent last, if anything was.
    pub(crate) sent: Option<Version>,
    /// What the client said to that.
    pub(crate) verdict: Verdict,
}

/// One stream's line on the roll, struck out when dropped.
#[derive(Debug)]
pub(super) struct Line {
    stream: u64,
    roll: Roll,
}

impl Roll {
    /// The streams by number.
    pub(crate) fn records(&self) -> BTreeMap<u64, Record> {
        self.lock().clone()
    }

    pub(super) fn enter(&self, stream: u64, protocol: &'static str, now: OffsetDateTime) -> Line {
        let record = Record {
            protocol,
            opened: now,
            node: String::new(),
            secrets: Vec::new(),
        };
        self.lock().insert(stream, record);
        Line {
            stream,
            roll: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Notes how the stream stands.
    pub(super) fn note(&self, ledger: &Ledger) {
        if let Some(record) = self.roll.lock().get_mut(&self.stream) {
            ledger
                .node()
                .unwrap_or_default()
                .clone_into(&mut record.node);
            let wishes = ledger.wanted.iter().map(|(name, entry)| Wish {
                name: name.clone(),
                sent: entry.version().cloned(),
                verdict: entry.verdict.clone(),
            });
            record.secrets = wishes.collect();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.roll.lock().remove(&self.stream);
    }
}
