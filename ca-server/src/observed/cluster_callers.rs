//! What there is to tell of the clusters whose callers are believed.

use ca_auth::kubernetes::{ClusterStatus, IndexStatus, RemoteClusterStatus};

use super::keys;
use crate::authentication::ClusterCallers;
use crate::report::{ClusterCallersReport, IndexReport, RemoteClusterReport, ReviewsReport};

impl ClusterCallers {
    /// What somebody should look at.
    pub(super) fn notes(&self) -> Vec<String> {
        let clusters = self.clusters.status().into_iter();
        let of_index = clusters.filter_map(|cluster| {
            let failure = cluster.index?.failure?;
            Some(format!(
                "the pods of cluster {} cannot be watched: {failure}",
                cluster.id
            ))
        });
        let of_secrets = self.remote_clusters().into_iter().filter_map(|remote| {
            let failure = remote.failure?;
            Some(format!(
                "cluster {} of Secret {} is not taken: {failure}",
                remote.id, remote.secret
            ))
        });
        of_index.chain(of_secrets).collect()
    }

    pub(super) fn report(&self) -> Vec<ClusterCallersReport> {
        self.clusters.status().into_iter().map(cluster).collect()
    }

    pub(super) fn remote_report(&self) -> Vec<RemoteClusterReport> {
        let remote = self.remote_clusters().into_iter();
        remote
            .map(|remote| RemoteClusterReport {
                id: remote.id,
                secret: remote.secret,
                last_error: remote.failure,
            })
            .collect()
    }

    fn remote_clusters(&self) -> Vec<RemoteClusterStatus> {
        self.remote
            .as_ref()
            .map(|remote| remote.status())
            .unwrap_or_default()
    }
}

fn cluster(status: ClusterStatus) -> ClusterCallersReport {
    let reviews = status.reviews;
    ClusterCallersReport {
        id: status.id.to_string(),
        issuer: status.issuer,
        keys: status.keys.map(keys),
        index: status.index.map(index),
        reviews: ReviewsReport {
            asked: reviews.asked,
            refused: reviews.refused,
            failed: reviews.failed,
            remembered: reviews.remembered,
        },
    }
}

fn index(status: IndexStatus) -> IndexReport {
    IndexReport {
        pods: status.pods as u64,
        service_accounts: status.service_accounts as u64,
        age_seconds: status.age.map(|age| age.as_secs()),
        last_error: status.failure.map(Into::into),
    }
}
