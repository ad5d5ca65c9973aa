//! What a server in a cluster has to tell beyond its CA: who leads, and where the roots have got to.

use crate::controllers::PublishStatus;
use crate::kubernetes::{Followed, Leadership};
use crate::report::{
    ClusterReport, Failure, FilesReport, LeaseReport, PublishedReport, WebhookReport, shown,
};

/// Handles to its parts. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct InCluster {
    pub(crate) lease: String,
    pub(crate) leadership: Leadership,
    pub(crate) published: PublishStatus,
    /// Where the CA is in a Secret.
    pub(crate) secret: Option<Followed>,
}

impl InCluster {
    /// What somebody should look at.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(secret) = &self.secret
            && let counts = secret.counts()
            && let Some((_, reason)) = counts.last_refusal.filter(|_| counts.is_refused)
        {
            let place = secret.place().display();
            notes.push(format!("{place} as it is now is not taken: {reason}"));
        }
        let standing = self.leadership.standing();
        if let Some(reason) = standing.failure {
            notes.push(format!("lease {}: {reason}", self.lease));
        }
        let published = self.published.snapshot();
        let is_behind = published.objects.values().any(|each| each.outdated > 0);
        if let Some((_, reason)) = published.last_failure.filter(|_| is_behind) {
            notes.push(format!("roots are not published everywhere: {reason}"));
        }
        notes
    }

    pub(super) fn report(&self) -> ClusterReport {
        let standing = self.leadership.standing();
        let published = self.published.snapshot();
        ClusterReport {
            lease: LeaseReport {
                name: self.lease.clone(),
                leads: standing.leads,
                holder: standing.holder.map(|holder| holder.to_string()),
                last_error: standing.failure.map(|reason| reason.to_string()),
            },
            published: published
                .objects
                .into_iter()
                .map(|(kind, objects)| PublishedReport {
                    kind: kind.into(),
                    wanted: objects.wanted,
                    outdated: objects.outdated,
                    written: objects.written,
                    removed: objects.removed,
                    failures: objects.failures,
                })
                .collect(),
            webhooks: published
                .webhooks
                .into_iter()
                .map(|(name, counts)| WebhookReport {
                    name,
                    attempts: counts.attempts,
                    failures: counts.failures.values().sum(),
                })
                .collect(),
            last_failure: published.last_failure.map(|(at, reason)| Failure {
                time: shown(at),
                reason,
            }),
        }
    }

    /// As of files that are followed.
    pub(super) fn secret(&self) -> Option<FilesReport> {
        let secret = self.secret.as_ref()?;
        let counts = secret.counts();
        Some(FilesReport {
            path: secret.place().display().to_string(),
            loaded: counts.loaded.map(shown),
            loads: counts.loads,
            refusals: counts.refusals,
            is_refused: counts.is_refused,
            last_refusal: counts.last_refusal.map(|(at, reason)| Failure {
                time: shown(at),
                reason,
            }),
        })
    }
}
