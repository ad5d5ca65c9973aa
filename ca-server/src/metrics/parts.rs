//! What the parts of a server tell at the moment of a scrape, so that it cannot go stale.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use time::OffsetDateTime;

use super::{cluster_callers, in_cluster};
use crate::observed::Observed;

#[derive(Debug)]
pub(super) struct Parts(pub(super) Observed);

impl Collector for Parts {
    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: a scrape asks how it is now"
    )]
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(observed) = self;
        let ready = observed.readiness(OffsetDateTime::now_utc()).ready;
        readiness(&mut encoder, ready)?;
        self.keys(&mut encoder)?;
        self.files(&mut encoder)?;
        if let Some(audit) = &observed.audit {
            let count = PlainCount(audit.status().failures.count);
            let help = "Audit records that could not be written";
            let name = "mesh_ca_audit_failures";
            count.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        observed.spans.encode(&mut encoder)?;
        if let Some(cluster) = &observed.in_cluster {
            in_cluster::encode(cluster, &mut encoder)?;
        }
        if let Some(callers) = &observed.cluster_callers {
            cluster_callers::encode(callers, &mut encoder)?;
        }
        if let Some(rotator) = &observed.rotator {
            let name = "mesh_ca_rotation_steps";
            let help = "Steps of the root's rotation, also renewals, since the start";
            let mut steps = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for ((step, outcome), count) in rotator.steps() {
                let labels = [("step", step), ("outcome", outcome)];
                PlainCount(count).encode(steps.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Parts {
    fn keys(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let authenticators = self.0.authenticators.status().into_iter();
        let keys = authenticators.filter_map(|each| Some((each.issuer, each.keys?)));
        let keys: Vec<_> = keys
            .map(|(issuer, keys)| (issuer.unwrap_or_default(), keys))
            .collect();
        let name = "mesh_ca_token_keys_age_seconds";
        let help = "How long ago the keys of a token issuer were read";
        let mut ages = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (issuer, keys) in &keys {
            if let Some(age) = keys.age {
                let labels = [("issuer", issuer.as_str())];
                ConstGauge::new(age.as_secs_f64()).encode(ages.encode_family(&labels)?)?;
            }
        }
        let name = "mesh_ca_token_keys_failing";
        let help = "1 if the keys of a token issuer could not be read the last time";
        let mut failing = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (issuer, keys) in &keys {
            let labels = [("issuer", issuer.as_str())];
            let gauge = ConstGauge::<u64>::new(keys.failure.is_some().into());
            gauge.encode(failing.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn files(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ca = self.0.files.as_ref();
        let ca = ca.map(|(_, files)| ("ca", files.generation(), files.status().refusals));
        let secret = self.0.in_cluster.as_ref();
        let secret = secret.and_then(|cluster| cluster.secret.as_ref());
        let secret = secret.map(|secret| {
            let counts = secret.counts();
            ("ca", counts.loads, counts.refusals)
        });
        let policy = self.0.policy.as_ref();
        let policy = policy.map(|(_, file)| ("policy", file.generation(), file.status().refusals));
        let all: Vec<_> = ca.into_iter().chain(secret).chain(policy).collect();
        let name = "mesh_ca_file_loads";
        let help = "How many contents of a followed file were taken, with the first";
        let mut loads = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (file, taken, _) in &all {
            PlainCount(*taken).encode(loads.encode_family(&[("file", *file)])?)?;
        }
        let name = "mesh_ca_file_refusals";
        let help = "How many contents of a followed file were not taken";
        let mut refusals = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (file, _, refused) in &all {
            PlainCount(*refused).encode(refusals.encode_family(&[("file", *file)])?)?;
        }
        Ok(())
    }
}

pub(super) fn readiness(encoder: &mut DescriptorEncoder<'_>, ready: bool) -> fmt::Result {
    let (name, help) = (
        "mesh_ca_ready",
        "1 if a certificate asked for now would be signed",
    );
    let gauge = ConstGauge::<u64>::new(ready.into());
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// A counter under exactly its name, as `PlainCounter` is.
pub(super) struct PlainCount(pub(super) u64);

impl PlainCount {
    pub(super) fn encode(
        &self,
        mut encoder: prometheus_client::encoding::MetricEncoder<'_>,
    ) -> fmt::Result {
        encoder.encode_gauge(&self.0)
    }
}
