//! How it goes with the clusters whose callers are believed, at the moment of a scrape.

use std::fmt;

use ca_auth::kubernetes::{ClusterStatus, ReviewCounts};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::parts::PlainCount;
use crate::authentication::ClusterCallers;

pub(super) fn encode(callers: &ClusterCallers, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let clusters = callers.clusters.status();
    let help = "How long ago the API server of a cluster was last heard of";
    gauge(
        encoder,
        &clusters,
        "mesh_ca_cluster_age_seconds",
        help,
        |cluster| Some(cluster.index.as_ref()?.age?.as_secs_f64()),
    )?;
    let help = "Pods that are known";
    gauge(
        encoder,
        &clusters,
        "mesh_ca_cluster_pods",
        help,
        |cluster| Some(cluster.index.as_ref()?.pods as f64),
    )?;
    let help = "1 if a cluster cannot be watched at the moment";
    gauge(
        encoder,
        &clusters,
        "mesh_ca_cluster_failing",
        help,
        |cluster| {
            Some(f64::from(u8::from(
                cluster.index.as_ref()?.failure.is_some(),
            )))
        },
    )?;
    let name = "mesh_ca_token_reviews";
    let help = "Questions about tokens to the API server of a cluster, and those that an earlier answer was enough for";
    let mut reviews = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for cluster in &clusters {
        for (outcome, count) in outcomes(&cluster.reviews) {
            let labels = [("cluster", &*cluster.id), ("outcome", outcome)];
            PlainCount(count).encode(reviews.encode_family(&labels)?)?;
        }
    }
    if let Some(remote) = &callers.remote {
        let failing = remote.status().into_iter();
        let failing = failing.filter(|remote| remote.failure.is_some()).count();
        let gauge = ConstGauge::new(failing as u64);
        let help = "Clusters of Secrets that are not taken as they are now";
        let name = "mesh_ca_remote_clusters_refused";
        gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
    }
    Ok(())
}

/// Questions that are still open count as good until they are answered.
fn outcomes(counts: &ReviewCounts) -> [(&'static str, u64); 4] {
    let bad = counts.refused + counts.failed;
    [
        ("good", counts.asked.saturating_sub(bad)),
        ("refused", counts.refused),
        ("failed", counts.failed),
        ("remembered", counts.remembered),
    ]
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    clusters: &[ClusterStatus],
    name: &str,
    help: &str,
    value: impl Fn(&ClusterStatus) -> Option<f64>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for cluster in clusters {
        if let Some(value) = value(cluster) {
            let labels = [("cluster", &*cluster.id)];
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
