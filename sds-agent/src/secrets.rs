//! The workload's secret: what it is, who keeps it fresh, and how others follow it.

mod keeper;
mod workload_secret;

use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::watch;

pub(crate) use keeper::Keeper;
pub(crate) use workload_secret::{Part, WorkloadSecret};

/// A view of the current secret. Cheap to clone; each clone sees every change for itself.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    current: watch::Receiver<Option<Arc<WorkloadSecret>>>,
    progress: watch::Receiver<Progress>,
}

/// The other end: whoever holds it decides what the current secret is.
#[derive(Debug)]
pub(crate) struct Publisher {
    current: watch::Sender<Option<Arc<WorkloadSecret>>>,
    progress: watch::Sender<Progress>,
}

/// How it is going, for people and for machines that watch over the agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// When a secret was last obtained.
    pub(crate) last_success: Option<OffsetDateTime>,
    /// When the latest secret expires, or has expired.
    pub(crate) expires: Option<OffsetDateTime>,
    /// Why the latest attempt failed; nothing when it did not.
    pub(crate) last_error: Option<Arc<str>>,
    /// When the next attempt is due.
    pub(crate) next_attempt: Option<OffsetDateTime>,
}

/// Makes the two ends. There is no secret yet.
pub(crate) fn channel() -> (Publisher, Secrets) {
    let (current_sender, current) = watch::channel(None);
    let (progress_sender, progress) = watch::channel(Progress::default());
    (
        Publisher {
            current: current_sender,
            progress: progress_sender,
        },
        Secrets { current, progress },
    )
}

impl Secrets {
    /// The current secret, unless there is none or it has expired.
    pub(crate) fn valid_at(&self, now: OffsetDateTime) -> Option<Arc<WorkloadSecret>> {
        let current = self.current.borrow();
        current
            .as_ref()
            .filter(|secret| secret.is_valid_at(now))
            .cloned()
    }

    /// Returns when the secret has changed since this view last saw it.
    ///
    /// # Errors
    ///
    /// When it will never change again, because the [`Publisher`] is gone.
    pub(crate) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.current.changed().await
    }

    /// How it is going.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }
}

impl Publisher {
    /// Replaces the current secret.
    pub(crate) fn publish(&self, secret: Option<Arc<WorkloadSecret>>) {
        self.current.send_replace(secret);
    }

    /// The current secret, valid or not.
    pub(crate) fn current(&self) -> Option<Arc<WorkloadSecret>> {
        self.current.borrow().clone()
    }

    /// Reports how it is going.
    pub(crate) fn report(&self, report: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(report);
    }
}

#[cfg(test)]
pub(crate) mod testing;
