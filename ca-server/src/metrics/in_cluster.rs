//! Who leads, and where the roots have got to, at the moment of a scrape.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::parts::PlainCount;
use crate::controllers::{Objects, Published};
use crate::observed::InCluster;

pub(super) fn encode(cluster: &InCluster, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let gauge = ConstGauge::<u64>::new(cluster.leadership.is_held().into());
    let help = "1 if this process rotates the root by time and publishes the roots";
    gauge.encode(encoder.encode_descriptor("mesh_ca_leader", help, None, MetricType::Gauge)?)?;
    let published = cluster.published.snapshot();
    objects(&published, encoder)?;
    webhooks(&published, encoder)
}

/// A metric of each kind of object.
struct OfObjects {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: fn(&Objects) -> u64,
}

fn objects(published: &Published, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let metrics = [
        OfObjects {
            name: "mesh_ca_published_objects",
            help: "Objects with roots that are to be there; 0 where somebody else leads",
            kind: MetricType::Gauge,
            value: |objects| objects.wanted,
        },
        OfObjects {
            name: "mesh_ca_outdated_objects",
            help: "How many of these do not say yet what they should",
            kind: MetricType::Gauge,
            value: |objects| objects.outdated,
        },
        OfObjects {
            name: "mesh_ca_object_writes",
            help: "Objects with roots written",
            kind: MetricType::Counter,
            value: |objects| objects.written,
        },
        OfObjects {
            name: "mesh_ca_object_removals",
            help: "Objects with roots taken away from namespaces that are not selected any more",
            kind: MetricType::Counter,
            value: |objects| objects.removed,
        },
        OfObjects {
            name: "mesh_ca_object_failures",
            help: "Objects with roots that could not be written, each time",
            kind: MetricType::Counter,
            value: |objects| objects.failures,
        },
    ];
    for metric in metrics {
        let mut family = encoder.encode_descriptor(metric.name, metric.help, None, metric.kind)?;
        for (kind, objects) in &published.objects {
            let count = PlainCount((metric.value)(objects));
            count.encode(family.encode_family(&[("kind", *kind)])?)?;
        }
    }
    Ok(())
}

/// Under Istio's names.
fn webhooks(published: &Published, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (name, help) = (
        "webhook_patch_attempts_total",
        "Webhook configurations written",
    );
    let mut attempts = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (name, counts) in &published.webhooks {
        let labels = [("name", name.as_str())];
        PlainCount(counts.attempts).encode(attempts.encode_family(&labels)?)?;
    }
    let (name, help) = ("webhook_patch_retries_total", "The same after a failure");
    let mut retries = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (name, counts) in &published.webhooks {
        let labels = [("name", name.as_str())];
        PlainCount(counts.retries).encode(retries.encode_family(&labels)?)?;
    }
    let (name, help) = (
        "webhook_patch_failures_total",
        "Webhook configurations not written",
    );
    let mut failures = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (name, counts) in &published.webhooks {
        for (reason, count) in &counts.failures {
            let labels = [("name", name.as_str()), ("reason", *reason)];
            PlainCount(*count).encode(failures.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
