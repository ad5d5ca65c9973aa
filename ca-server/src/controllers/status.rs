//! What has come of publishing, for those who ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;

/// Shared between who publishes and who tells. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublishStatus(Arc<Mutex<Published>>);

/// How it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// By kind: what this process knows while it leads.
    pub(crate) objects: BTreeMap<&'static str, Objects>,
    /// Of webhook configurations, by name and outcome.
    pub(crate) webhooks: BTreeMap<String, WebhookCounts>,
    pub(crate) last_failure: Option<(OffsetDateTime, String)>,
}

/// The objects of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    /// How many there are to be.
    pub(crate) wanted: u64,
    /// How many of these are not as they should be, as far as we know.
    pub(crate) outdated: u64,
    /// Written since the start.
    pub(crate) written: u64,
    /// Taken away because their namespace is not selected any more.
    pub(crate) removed: u64,
    pub(crate) failures: u64,
}

/// As Istio counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WebhookCounts {
    pub(crate) attempts: u64,
    pub(crate) retries: u64,
    /// By reason.
    pub(crate) failures: BTreeMap<&'static str, u64>,
}

impl PublishStatus {
    pub(crate) fn snapshot(&self) -> Published {
        self.change(|published| published.clone())
    }

    pub(super) fn objects(&self, kind: &'static str, change: impl FnOnce(&mut Objects)) {
        self.change(|published| change(published.objects.entry(kind).or_default()));
    }

    pub(super) fn webhook(&self, name: &str, change: impl FnOnce(&mut WebhookCounts)) {
        self.change(|published| change(published.webhooks.entry(name.to_owned()).or_default()));
    }

    #[expect(clippy::disallowed_methods, reason = "an edge: it has just happened")]
    pub(super) fn failed(&self, kind: &'static str, what: &str, reason: &str) {
        tracing::warn!("{kind} {what} not written, to be tried again: {reason}");
        let now = OffsetDateTime::now_utc();
        self.change(|published| {
            published.objects.entry(kind).or_default().failures += 1;
            published.last_failure = Some((now, format!("{kind} {what}: {reason}")));
        });
    }

    /// Somebody else leads: how it stands is for that one to know.
    pub(super) fn nobody_knows(&self) {
        self.change(|published| {
            for objects in published.objects.values_mut() {
                (objects.wanted, objects.outdated) = (0, 0);
            }
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut Published) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
