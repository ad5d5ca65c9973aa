//! How it stands with the certificate of this CA, for whoever asks.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use crate::report::shown;

/// Written by the one task, read by pages. Cheap to clone, all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Situation(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    wanted: String,
    upstream: String,
    /// Locked for a look.
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    renewal: Option<OffsetDateTime>,
    awaited: Option<String>,
    failure: Option<(OffsetDateTime, String)>,
}

impl Situation {
    /// `wanted` is what there is to be before anything can be signed, as a sentence goes on after "waiting for"; it comes from
    /// `upstream`.
    pub(crate) fn new(wanted: String, upstream: String) -> Self {
        Self(Arc::new(Shared {
            wanted,
            upstream,
            state: Mutex::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn renewal(&self, at: OffsetDateTime) {
        self.state().renewal = Some(at);
    }

    pub(super) fn awaits(&self, what: String) {
        self.state().awaited = Some(what);
    }

    pub(crate) fn failed(&self, now: OffsetDateTime, why: String) {
        self.state().failure = Some((now, why));
    }

    /// A request is still out.
    pub(crate) fn recovered(&self) {
        self.state().failure = None;
    }

    pub(super) fn settled(&self, renewal: OffsetDateTime) {
        *self.state() = State {
            renewal: Some(renewal),
            ..State::default()
        };
    }

    /// What is waited for before anything can be signed, and from where.
    pub(crate) fn wanted(&self) -> &str {
        &self.0.wanted
    }

    /// Who certifies: an address or a folder.
    pub(crate) fn upstream(&self) -> &str {
        &self.0.upstream
    }

    /// What is waited for, if anything.
    pub(crate) fn awaited(&self) -> Option<String> {
        self.state().awaited.clone()
    }

    /// When the certificate is renewed, or the next attempt is made.
    pub(crate) fn next(&self) -> Option<OffsetDateTime> {
        self.state().renewal
    }

    /// What went wrong since it last went well.
    pub(crate) fn failure(&self) -> Option<(OffsetDateTime, String)> {
        self.state().failure.clone()
    }
}

/// Lines that follow others.
impl fmt::Display for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state().clone();
        match (state.awaited, state.renewal) {
            (Some(awaited), _) => write!(f, "\nwaiting for  {awaited}")?,
            (None, Some(at)) => write!(f, "\nrenewal      {}", shown(at))?,
            (None, None) => {}
        }
        if let Some((at, why)) = state.failure {
            write!(f, "\nfailed       {}: {why}", shown(at))?;
        }
        Ok(())
    }
}
