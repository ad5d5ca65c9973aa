//! What a rotator has to do with others who work on the same store.

use std::time::Duration;

use ca_core::{Backoff, random_unit};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;

use super::rotator::StepError;
use crate::kubernetes::{Followed, Leadership, Seen};

/// The others.
#[derive(Debug)]
pub(crate) struct Shared {
    leadership: Leadership,
    /// As it was when somebody looked last.
    led: bool,
    changes: Option<watch::Receiver<Seen>>,
    followed: Option<Followed>,
    /// When to look again after a failure.
    retry: Option<Instant>,
    backoff: Backoff,
}

impl Shared {
    /// There are none.
    pub(crate) fn with_nobody() -> Self {
        Self::new(Leadership::alone(), None, None)
    }

    /// `changes` rings when one of them may have written; `followed` is told what comes of it.
    pub(crate) fn with(
        leadership: Leadership,
        changes: watch::Receiver<Seen>,
        followed: Followed,
    ) -> Self {
        Self::new(leadership, Some(changes), Some(followed))
    }

    fn new(
        leadership: Leadership,
        changes: Option<watch::Receiver<Seen>>,
        followed: Option<Followed>,
    ) -> Self {
        Self {
            led: leadership.is_held(),
            leadership,
            changes,
            followed,
            retry: None,
            backoff: Backoff::new(FIRST_RETRY, LAST_RETRY),
        }
    }

    /// Whether we are the one who acts without being told to.
    pub(super) fn may_act(&self) -> bool {
        self.leadership.is_held()
    }

    /// Waits until there is something to do that no order and no clock of the rotator's own asks for.
    pub(super) async fn call(&mut self) -> Call {
        let Self {
            leadership, led, ..
        } = self;
        let gained = async {
            if *led {
                leadership.lost().await;
                *led = false;
            }
            leadership.gained().await;
            *led = true;
        };
        let rung = async {
            if let Some(changes) = &mut self.changes
                && changes.changed().await.is_ok()
            {
                return;
            }
            std::future::pending::<()>().await;
        };
        let retry = self.retry;
        let again = async {
            match retry {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = rung => Call::CatchUp,
            () = again => Call::CatchUp,
            () = gained => Call::Lead,
        }
    }

    /// What has come of a look at the store.
    #[expect(clippy::disallowed_methods, reason = "an edge: it has just happened")]
    pub(super) fn caught_up(&mut self, outcome: &Result<Outcome, StepError>) {
        let now = OffsetDateTime::now_utc();
        self.retry = None;
        let Some(followed) = &self.followed else {
            return;
        };
        match outcome {
            Ok(Outcome::Unchanged) => followed.unchanged(),
            Ok(Outcome::Taken) => followed.taken(now),
            Err(error) if error.is_passing() => {
                tracing::warn!("{} cannot be read: {error}", followed.place().display());
                self.retry = Some(Instant::now() + self.backoff.next(random_unit()));
                return;
            }
            Err(error) => followed.refused(now, &error.to_string()),
        }
        self.backoff.reset();
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// The store may hold something new.
    CatchUp,
    /// Leadership has come to us: whoever had it may have left something that is due.
    Lead,
}

/// What a look at the store has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Unchanged,
    Taken,
}

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
