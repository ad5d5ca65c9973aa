//! The record of what was issued and what was refused: one JSON object for each, one line for each.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

mod record;
mod rotated_file;

pub(crate) use record::Record;
use rotated_file::RotatedFile;
pub(crate) use rotated_file::RotationLimits;

/// Where records go, and what follows when they cannot.
#[derive(Debug)]
pub(crate) struct AuditLog {
    /// Held for one write: lines of two requests do not mix.
    state: Mutex<State>,
    on_failure: OnFailure,
}

#[derive(Debug)]
struct State {
    file: RotatedFile,
    failures: Failures,
}

/// What has gone wrong with the writing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    /// Whether the last record could not be written.
    pub(crate) is_failing: bool,
    pub(crate) last: Option<(Instant, String)>,
}

/// How it goes, for people and metrics.
#[derive(Clone, Debug)]
pub(crate) struct AuditStatus {
    pub(crate) path: PathBuf,
    pub(crate) on_failure: OnFailure,
    pub(crate) bytes: u64,
    pub(crate) failures: Failures,
}

/// What becomes of a certificate that cannot be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// It is released all the same; the failure is in the log.
    Release,
    /// It is not released.
    Refuse,
}

impl AuditLog {
    pub(crate) fn open(
        path: &Path,
        limits: RotationLimits,
        on_failure: OnFailure,
    ) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State {
                file: RotatedFile::open(path, limits)?,
                failures: Failures::default(),
            }),
            on_failure,
        })
    }

    /// Hands one record to the system, before the caller learns of the outcome.
    pub(crate) fn write(&self, record: &Record<'_>) -> Result<(), AuditError> {
        let mut line = serde_json::to_vec(record).map_err(|error| AuditError(error.to_string()))?;
        line.push(b'\n');
        let mut state = self
            .state
            .lock()
            .map_err(|_| AuditError("an earlier write panicked".into()))?;
        let written = state.file.write(&line);
        state.failures.is_failing = written.is_err();
        let Err(error) = written else {
            return Ok(());
        };
        state.failures.count += 1;
        state.failures.last = Some((Instant::now(), error.to_string()));
        tracing::error!(path = %state.file.path.display(), "audit record not written: {error}");
        match self.on_failure {
            OnFailure::Release => Ok(()),
            OnFailure::Refuse => Err(AuditError(error.to_string())),
        }
    }

    pub(crate) fn status(&self) -> AuditStatus {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        AuditStatus {
            path: state.file.path.clone(),
            on_failure: self.on_failure,
            bytes: state.file.bytes,
            failures: state.failures.clone(),
        }
    }
}

/// A record that could not be written where it must be.
#[derive(Debug, thiserror::Error)]
#[error("audit record not written: {0}")]
pub(crate) struct AuditError(String);

#[cfg(test)]
mod tests {
    use ca_core::testing::now;

    use super::record::tests::{evidence, issued};
    use super::*;

    #[test]
    fn what_cannot_be_recorded_is_released_or_not_as_configured() {
        let limits = RotationLimits {
            max_bytes: u64::MAX,
            keep: 1,
        };
        let evidence = evidence();
        let outcome = Ok(issued());
        for (on_failure, released) in [(OnFailure::Release, true), (OnFailure::Refuse, false)] {
            // A device that is always full.
            let log = AuditLog::open(Path::new("/dev/full"), limits, on_failure).unwrap();
            let written = log.write(&Record::new(now(), &evidence, None, &outcome));
            assert_eq!(written.is_ok(), released, "{on_failure:?}");
            let failures = log.status().failures;
            assert!(failures.count == 1 && failures.is_failing && failures.last.is_some());
        }
    }
}
