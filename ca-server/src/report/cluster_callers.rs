//! What a server tells of the clusters whose callers it believes.

use serde::{Deserialize, Serialize};

use super::KeysReport;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterCallersReport {
    /// The name that its callers give.
    pub(crate) id: String,
    /// As far as known.
    pub(crate) issuer: Option<String>,
    /// Absent where every token is reviewed.
    pub(crate) keys: Option<KeysReport>,
    /// Absent where nothing is watched.
    pub(crate) index: Option<IndexReport>,
    pub(crate) reviews: ReviewsReport,
}

/// What is known of its pods and service accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexReport {
    pub(crate) pods: u64,
    pub(crate) service_accounts: u64,
    /// How long ago its API server was last heard of. Absent as long as not everything has been listed.
    pub(crate) age_seconds: Option<u64>,
    /// Why it is not heard of, if so.
    pub(crate) last_error: Option<String>,
}

/// What its API server has been asked about tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReviewsReport {
    pub(crate) asked: u64,
    pub(crate) refused: u64,
    /// Without an answer.
    pub(crate) failed: u64,
    /// Answered by an answer that was there, or on its way.
    pub(crate) remembered: u64,
}

/// A cluster out of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteClusterReport {
    pub(crate) id: String,
    pub(crate) secret: String,
    /// Why what the Secret says now is not used, if so.
    pub(crate) last_error: Option<String>,
}
