//! Every metric of the agent, on one page.
//!
//! Names that Istio's agent has too are spelled as it spells them, prefix `istio_agent_` included,
//! so that its dashboards and alerts keep working. The others start with `sds_agent_`.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, text::encode},
    metrics::{MetricType, TypedMetric, counter::Counter, family::Family, gauge::Gauge},
    registry::{Metric, Registry},
};
use time::OffsetDateTime;

use crate::secrets::{Progress, SecretName, Secrets};

type Labels = [(&'static str, &'static str); 1];
type Seconds = Gauge<f64, AtomicU64>;

/// Handles to the metrics. Whoever does something counts it here.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    latency: Family<Labels, Plain>,
    requests: Family<Labels, Plain>,
    failed_requests: Family<Labels, Plain>,
    retries: Family<Labels, Plain>,
    /// Responses that clients refused.
    pub(crate) rejects: Plain,
    /// Requests about responses that were no longer the latest.
    stale: Family<Labels, Plain>,
    started: Instant,
    startup: Seconds,
    /// Files that cannot be watched.
    pub(crate) file_watcher_failures: Plain,
    /// Contents of files that are not served.
    pub(crate) file_failures: Plain,
    expiry: Family<[(&'static str, String); 1], Seconds>,
    next_attempt: Seconds,
    last_success: Seconds,
    pushes: Family<Labels, Counter>,
    /// Connections from processes that are not allowed.
    pub(crate) refused_peers: Counter,
    /// Open SDS streams.
    pub(crate) streams: Gauge,
    /// Attempts to write the output folder that failed.
    pub(crate) output_failures: Counter,
    /// Contents of Secrets that are not served.
    #[cfg(feature = "gateway")]
    pub(crate) credential_refusals: Counter,
    /// Failures to hear of changes of Secrets.
    #[cfg(feature = "gateway")]
    pub(crate) credential_watch_failures: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let mut istio = Page(registry.sub_registry_with_prefix("istio_agent"));
        let latency = istio.add(
            "outgoing_latency",
            "Time spent on requests to the CA, in ms",
        );
        let requests = istio.add("num_outgoing_requests", "Requests to the CA");
        let failed_requests = istio.add("num_failed_outgoing_requests", "Failed requests");
        let retries = istio.add(
            "num_outgoing_retries",
            "Attempts that followed a failed one",
        );
        let rejects = istio.add(
            "pilot_total_xds_rejects",
            "SDS responses that clients refused",
        );
        let stale = istio.add(
            "pilot_xds_expired_nonce",
            "SDS requests about an older response",
        );
        let file_watcher_failures = istio.add(
            "num_file_watcher_failures_total",
            "Sets of files whose changes the system does not report",
        );
        let file_failures = istio.add(
            "num_file_secret_failures_total",
            "Contents of files that do not read, do not fit together or have expired",
        );
        let expiry = istio.add(
            "cert_expiry_seconds",
            "Seconds until the certificate expires; negative once it has",
        );
        let startup = istio.add(
            "startup_duration_seconds",
            "From the start of the agent to its first valid certificate; 0 before",
        );
        let mut own = Page(registry.sub_registry_with_prefix("sds_agent"));
        let next_attempt = own.add(
            "next_renewal_timestamp_seconds",
            "When the CA is asked next, in Unix time; 0 before the first attempt",
        );
        let last_success = own.add(
            "last_success_timestamp_seconds",
            "When a certificate was last obtained, in Unix time; 0 before the first",
        );
        let pushes = own.add("pushes", "Secrets sent to SDS clients");
        let refused_peers = own.add(
            "refused_peers",
            "Connections from processes that are not allowed",
        );
        let streams = own.add("streams", "Open SDS streams");
        let output_failures = own.add(
            "output_failures",
            "Attempts to write the output folder that failed",
        );
        #[cfg(feature = "gateway")]
        let credential_refusals = own.add(
            "credential_refusals",
            "Secrets of Kubernetes that are wanted and not served as they are",
        );
        #[cfg(feature = "gateway")]
        let credential_watch_failures = own.add(
            "credential_watch_failures",
            "Requests to the API server for secrets and their changes that failed",
        );
        Self {
            registry,
            latency,
            requests,
            failed_requests,
            retries,
            rejects,
            stale,
            started: Instant::now(),
            startup,
            refused_peers,
            file_watcher_failures,
            file_failures,
            expiry,
            next_attempt,
            last_success,
            pushes,
            streams,
            output_failures,
            #[cfg(feature = "gateway")]
            credential_refusals,
            #[cfg(feature = "gateway")]
            credential_watch_failures,
        }
    }

    /// The CA was asked.
    pub(crate) fn asked(&self, took: Duration) {
        self.requests.get_or_create(&CSR).add(1.0);
        self.latency
            .get_or_create(&CSR)
            .add(took.as_secs_f64() * 1e3);
    }

    /// The CA's answer was no, none, or unfit.
    pub(crate) fn failed(&self) {
        self.failed_requests.get_or_create(&CSR).add(1.0);
    }

    /// The CA is about to be asked again because the last time failed.
    pub(crate) fn retried(&self) {
        self.retries.get_or_create(&CSR).add(1.0);
    }

    /// A request was about a response that is no longer the latest.
    pub(crate) fn heard_late(&self) {
        self.stale.get_or_create(&[("type", "sds")]).add(1.0);
    }

    /// There is a valid certificate, for the first time.
    pub(crate) fn became_ready(&self) {
        let took = self.started.elapsed().as_secs_f64();
        self.startup.set(took);
    }

    /// These secrets were sent to a client.
    pub(crate) fn pushed(&self, names: &[SecretName]) {
        for name in names {
            self.pushes
                .get_or_create(&[("resource_name", name.kind())])
                .inc();
        }
    }

    /// Everything in the text format of OpenMetrics.
    ///
    /// # Errors
    ///
    /// Never in practice: writing to a `String` does not fail.
    pub(crate) fn render(
        &self,
        secrets: &Secrets,
        now: OffsetDateTime,
    ) -> Result<String, std::fmt::Error> {
        let Progress {
            last_success,
            next_attempt,
            ..
        } = secrets.progress();
        // Also of files, which nobody renews for us; not of files that nobody wants any more.
        self.expiry.clear();
        for (name, secret) in secrets.shelf().iter() {
            if let Some(end) = secret.not_after() {
                self.expiry
                    .get_or_create(&[("resource_name", name.to_string())])
                    .set((end - now).as_seconds_f64());
            }
        }
        self.next_attempt.set(unix(next_attempt));
        self.last_success.set(unix(last_success));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

const CSR: Labels = [("request_type", "csr")];

/// A counter whose name is written as it is. OpenMetrics would append `_total`, which Istio's names
/// do not have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plain(Counter<f64, AtomicU64>);

impl Plain {
    /// Counts one.
    pub(crate) fn inc(&self) {
        self.add(1.0);
    }

    fn add(&self, amount: f64) {
        self.0.inc_by(amount);
    }
}

impl EncodeMetric for Plain {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        // A bare sample; the type that goes with it says that it is no gauge.
        encoder.encode_gauge(&self.0.get())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Unknown
    }
}

impl TypedMetric for Plain {
    const TYPE: MetricType = MetricType::Unknown;
}

/// Registers metrics under one prefix.
struct Page<'a>(&'a mut Registry);

impl Page<'_> {
    fn add<M: Metric + Default + Clone>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds since 1970 fit for a while"
)]
fn unix(at: Option<OffsetDateTime>) -> f64 {
    at.map_or(0.0, |at| at.unix_timestamp() as f64)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::secrets::{self, testing::Lineage};

    #[test]
    fn names_are_those_that_dashboards_know() {
        let (publisher, secrets) = secrets::testing::channel();
        let metrics = Metrics::new();
        metrics.asked(Duration::from_millis(250));
        metrics.failed();
        metrics.retried();
        metrics.rejects.inc();
        metrics.heard_late();
        metrics.became_ready();
        metrics.pushed(&[SecretName::KeyPair]);
        let workload = Lineage::new().workload();
        let end = workload.secret.not_after();
        publisher.publish(workload, end);
        publisher.report(|progress| {
            progress.last_success = Some(datetime!(2026-11-21 12:00 UTC));
        });
        let text = metrics
            .render(&secrets, end + Duration::from_secs(10))
            .unwrap();
        for line in [
            "istio_agent_outgoing_latency{request_type=\"csr\"} 250.0",
            "istio_agent_num_outgoing_requests{request_type=\"csr\"} 1.0",
            "istio_agent_num_failed_outgoing_requests{request_type=\"csr\"} 1.0",
            "istio_agent_num_outgoing_retries{request_type=\"csr\"} 1.0",
            "istio_agent_pilot_total_xds_rejects 1.0",
            "istio_agent_pilot_xds_expired_nonce{type=\"sds\"} 1.0",
            "istio_agent_num_file_watcher_failures_total 0.0",
            "istio_agent_num_file_secret_failures_total 0.0",
            "istio_agent_cert_expiry_seconds{resource_name=\"default\"} -10.0",
            "sds_agent_last_success_timestamp_seconds 1795262400.0",
            "sds_agent_pushes_total{resource_name=\"default\"} 1",
            "sds_agent_streams 0",
            "# EOF",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no {line} in\n{text}"
            );
        }
        assert!(
            text.contains("\nistio_agent_startup_duration_seconds "),
            "{text}"
        );
    }
}
