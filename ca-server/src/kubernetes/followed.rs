//! How it goes with an object of the cluster that is followed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;

/// Shared between who follows and who tells. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    place: Arc<Path>,
    /// Held for one change or one copy.
    counts: Arc<Mutex<Counts>>,
}

/// What has come of its contents so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Contents taken, with the first.
    pub(crate) loads: u64,
    pub(crate) loaded: Option<OffsetDateTime>,
    pub(crate) refusals: u64,
    /// Whether what is there now is not in use.
    pub(crate) is_refused: bool,
    pub(crate) last_refusal: Option<(OffsetDateTime, String)>,
}

impl Followed {
    /// The first content is in use.
    pub(crate) fn new(place: PathBuf) -> Self {
        let counts = Counts {
            loads: 1,
            ..Counts::default()
        };
        Self {
            place: place.into(),
            counts: Arc::new(Mutex::new(counts)),
        }
    }

    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    pub(crate) fn counts(&self) -> Counts {
        self.change(|counts| counts.clone())
    }

    /// What is there now is in use.
    pub(crate) fn taken(&self, now: OffsetDateTime) {
        self.change(|counts| {
            counts.loads += 1;
            counts.loaded = Some(now);
            counts.is_refused = false;
        });
    }

    /// What is there now is what is in use already.
    pub(crate) fn unchanged(&self) {
        self.change(|counts| counts.is_refused = false);
    }

    /// What is there now is not taken; the one before stays in use.
    pub(crate) fn refused(&self, now: OffsetDateTime, reason: &str) {
        tracing::error!(
            "{} as it is now is not taken: {reason}",
            self.place.display()
        );
        self.change(|counts| {
            counts.refusals += 1;
            counts.is_refused = true;
            counts.last_refusal = Some((now, reason.to_owned()));
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
