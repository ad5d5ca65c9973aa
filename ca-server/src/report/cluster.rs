//! What a server in a Kubernetes cluster tells of itself beyond its CA.

use serde::{Deserialize, Serialize};

use super::Failure;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterReport {
    pub(crate) lease: LeaseReport,
    /// Where this process leads.
    pub(crate) published: Vec<PublishedReport>,
    pub(crate) webhooks: Vec<WebhookReport>,
    /// Of publishing.
    pub(crate) last_failure: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseReport {
    pub(crate) name: String,
    /// Whether this process rotates the root by time and publishes the roots.
    pub(crate) leads: bool,
    pub(crate) holder: Option<String>,
    /// Why the lease could not be held or looked at the last time, if so.
    pub(crate) last_error: Option<String>,
}

/// The objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedReport {
    /// `config_map`, `cluster_trust_bundle` or `webhook`.
    pub(crate) kind: String,
    pub(crate) wanted: u64,
    /// How many of these do not say yet what they should.
    pub(crate) outdated: u64,
    pub(crate) written: u64,
    pub(crate) removed: u64,
    pub(crate) failures: u64,
}

/// A webhook configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WebhookReport {
    pub(crate) name: String,
    pub(crate) attempts: u64,
    pub(crate) failures: u64,
}
