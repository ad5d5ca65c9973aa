//! Every metric of the server, on one page.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ca_core::files::FollowedFiles;
use ca_core::{Certificate, KeyCertBundle};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;
use time::OffsetDateTime;

use crate::admission::Admission;
use crate::authority::signing::Signing;
use crate::observed::Observed;
use crate::serving::{DNS, GRPC, ServingStatuses, WEBHOOK};
use crate::status::Refused;

mod authentication;
mod cluster_callers;
mod in_cluster;
mod parts;
mod rpc;
mod waiting;

pub(crate) use authentication::Verdicts;
use parts::{Parts, PlainCount};
use rpc::RpcMetrics;
pub(crate) use rpc::{Call, Method};
pub(crate) use waiting::before_there_is_a_ca;

/// Counts what happens; `text` is what a scrape gets.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    csr_count: PlainCounter,
    authentication_failures: PlainCounter,
    sign_errors: Family<ErrorLabel, PlainCounter>,
    issued: PlainCounter,
    turned_away_by_address: PlainCounter,
    issuance_seconds: Histogram,
    stage_seconds: Family<StageLabel, Histogram>,
    rpc: RpcMetrics,
}

/// A part of the work on a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// For a thread.
    Wait,
    /// Of the request: three quarters of the work.
    Check,
    Sign,
}

impl Metrics {
    /// Metrics of a server whose certificates come from `signing`, and that follows `files` if its key is plugged in.
    pub(crate) fn new(
        signing: Signing,
        files: Option<FollowedFiles<KeyCertBundle>>,
        admission: Admission,
        serving: ServingStatuses,
    ) -> Arc<Self> {
        let (csr_count, authentication_failures) =
            (PlainCounter::default(), PlainCounter::default());
        let (sign_errors, issued) = (
            Family::<ErrorLabel, PlainCounter>::default(),
            PlainCounter::default(),
        );
        // From 50 µs, which a P-256 signature takes, to 13 s.
        let issuance_seconds = Histogram::new(exponential_buckets(0.000_05, 2.0, 19));

        let mut registry = Registry::default();
        registry.register(
            "citadel_server_csr_count",
            "Certificate requests received",
            csr_count.clone(),
        );
        registry.register(
            "citadel_server_authentication_failure_count",
            "Requests refused because nobody vouches for the caller or its wish to act for another",
            authentication_failures.clone(),
        );
        registry.register(
            "citadel_server_csr_sign_err_count",
            "Requests that were not signed",
            sign_errors.clone(),
        );
        registry.register(
            "citadel_server_success_cert_issuance_count",
            "Certificates issued",
            issued.clone(),
        );
        let turned_away_by_address = PlainCounter::default();
        registry.register(
            "mesh_ca_turned_away_by_address",
            "Requests turned away because their address had too many under way",
            turned_away_by_address.clone(),
        );
        registry.register(
            "mesh_ca_issuance_seconds",
            "From request to certificate",
            issuance_seconds.clone(),
        );
        // Istio registers both and counts neither any more.
        for name in [
            "citadel_server_csr_parsing_err_count",
            "citadel_server_id_extraction_err_count",
        ] {
            registry.register(name, "Always 0", PlainCounter::default());
        }
        let stage_seconds = Family::<StageLabel, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.000_005, 2.0, 20))
        });
        registry.register(
            "mesh_ca_stage_seconds",
            "The parts of the work on a request",
            stage_seconds.clone(),
        );
        let rpc = RpcMetrics::default();
        rpc.register(&mut registry);
        registry.register_collector(Box::new(LiveGauges {
            signing,
            files,
            admission,
            serving,
        }));
        Arc::new(Self {
            registry,
            csr_count,
            authentication_failures,
            sign_errors,
            issued,
            turned_away_by_address,
            issuance_seconds,
            stage_seconds,
            rpc,
        })
    }

    /// A call begins; the value counts its end.
    pub(crate) fn begin(&self, method: Method) -> Call<'_> {
        self.rpc.begin(method)
    }

    /// The same for a call that ends before its message is read.
    pub(crate) fn begin_unread(&self, method: Method) -> Call<'_> {
        self.rpc.begin_unread(method)
    }

    pub(crate) fn stage(&self, stage: Stage, took: Duration) {
        let stage = match stage {
            Stage::Wait => "wait",
            Stage::Check => "check",
            Stage::Sign => "sign",
        };
        let label = StageLabel { stage };
        let seconds = self.stage_seconds.get_or_create(&label);
        seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn csr_received(&self) {
        self.csr_count.0.inc();
    }

    pub(crate) fn issued(&self, took: Duration) {
        self.issued.0.inc();
        self.issuance_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn counted(&self) -> Counted {
        Counted {
            received: self.csr_count.0.get(),
            issued: self.issued.0.get(),
            turned_away_by_address: self.turned_away_by_address.0.get(),
        }
    }

    pub(crate) fn refused(&self, refused: Refused) {
        let error = match refused {
            Refused::Authentication => {
                self.authentication_failures.0.inc();
                return;
            }
            Refused::Csr => "CSR_ERROR",
            Refused::Ttl => "TTL_ERROR",
            Refused::NotReady => "CA_NOT_READY",
            Refused::CertificateGeneration => "CERT_GEN_ERROR",
            Refused::Address => {
                self.turned_away_by_address.0.inc();
                return;
            }
            // Counted where it happens: `mesh_ca_turned_away`.
            Refused::Overload => return,
        };
        self.sign_errors
            .get_or_create(&ErrorLabel { error })
            .0
            .inc();
    }

    /// The Prometheus text format, with what the parts of a server tell at this moment.
    pub(crate) fn text(&self, observed: &Observed) -> Result<String, fmt::Error> {
        let mut of_parts = Registry::default();
        observed.verdicts.register(&mut of_parts);
        of_parts.register_collector(Box::new(Parts(observed.clone())));
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &of_parts)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// How many requests there were.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) received: u64,
    pub(crate) issued: u64,
    pub(crate) turned_away_by_address: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabel {
    error: &'static str,
}

/// A counter under exactly its name: Istio's names do not end in `_total`, which the library adds to its own counters.
#[derive(Clone, Debug, Default)]
struct PlainCounter(Counter);

impl EncodeMetric for PlainCounter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.0.get())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

impl TypedMetric for PlainCounter {
    const TYPE: MetricType = MetricType::Counter;
}

/// Read where they are at each scrape, so that they cannot go stale.
#[derive(Debug)]
struct LiveGauges {
    signing: Signing,
    files: Option<FollowedFiles<KeyCertBundle>>,
    admission: Admission,
    serving: ServingStatuses,
}

impl Collector for LiveGauges {
    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: a scrape asks how long from now"
    )]
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (bundle, now) = (self.signing.bundle(), OffsetDateTime::now_utc());
        let roots = match &bundle {
            Some(bundle) => bundle.roots().clone(),
            None => self.signing.roots().current(),
        };
        let mut expiry = |prefix: &str, help: &str, certificate: &Certificate| {
            let at = certificate.not_after();
            for (suffix, value) in [
                ("timestamp", at.unix_timestamp() as f64),
                ("seconds", (at - now).as_seconds_f64()),
            ] {
                let (name, gauge) = (format!("{prefix}_{suffix}"), ConstGauge::new(value));
                gauge.encode(encoder.encode_descriptor(
                    &name,
                    help,
                    None,
                    gauge.metric_type(),
                )?)?;
            }
            Ok::<_, fmt::Error>(())
        };
        expiry(
            "citadel_server_root_cert_expiry",
            "End of the first root (negative seconds: past)",
            &roots.certificates()[0],
        )?;
        if let Some(bundle) = &bundle {
            // The first certificate of the chain is the signing one, unless that is a root itself.
            if !roots.contains(bundle.signing_certificate()) {
                expiry(
                    "citadel_server_cert_chain_expiry",
                    "End of the first chain certificate",
                    bundle.chain().leaf(),
                )?;
            }
            expiry(
                "mesh_ca_signing_cert_expiry",
                "End of the signing certificate",
                bundle.signing_certificate(),
            )?;
        }
        if let Some(generation) = self.signing.generation() {
            let help = "How many bundles this process has signed from";
            let generation = ConstGauge::new(generation);
            gauge_into(&mut encoder, "mesh_ca_bundle_generation", help, &generation)?;
        }
        if let Signing::Asked(registration) = &self.signing
            && let Some(count) = registration.under_way()
        {
            let help = "Requests that the signer has not answered yet";
            let count = ConstGauge::new(count as u64);
            gauge_into(
                &mut encoder,
                "mesh_ca_signer_requests_under_way",
                help,
                &count,
            )?;
        }
        let waiting = ConstGauge::new(self.admission.waiting() as u64);
        gauge_into(
            &mut encoder,
            "mesh_ca_waiting",
            "Requests that wait for a thread",
            &waiting,
        )?;
        let turned_away = self.admission.turned_away();
        let help = "Requests turned away because too many were waiting";
        count_into(&mut encoder, "mesh_ca_turned_away", help, turned_away)?;
        serving_certificates(&mut encoder, &self.serving)?;
        if let Some(files) = &self.files {
            let refusals = files.status().refusals;
            let help = "How many times the CA's files were not taken as they were";
            count_into(&mut encoder, "mesh_ca_ca_files_refused", help, refusals)?;
        }
        Ok(())
    }
}

/// One line for each certificate that we show or write.
fn serving_certificates(
    encoder: &mut DescriptorEncoder<'_>,
    statuses: &ServingStatuses,
) -> fmt::Result {
    let statuses = statuses.snapshot();
    let mut expiry = encoder.encode_descriptor(
        "mesh_ca_serving_certificate_expiry_timestamp",
        "End of a certificate that this server shows or writes",
        None,
        MetricType::Gauge,
    )?;
    for status in &statuses {
        if let Some(certificate) = &status.certificate {
            let labels = [("name", &*status.name)];
            let gauge = ConstGauge::new(certificate.not_after().unix_timestamp() as f64);
            gauge.encode(expiry.encode_family(&labels)?)?;
        }
    }
    let mut failures = encoder.encode_descriptor(
        "mesh_ca_serving_certificate_failures",
        "How many times such a certificate was not made, not taken or not written",
        None,
        MetricType::Counter,
    )?;
    for status in &statuses {
        let labels = [("name", &*status.name)];
        PlainCount(status.failures).encode(failures.encode_family(&labels)?)?;
    }
    let mut handshakes = encoder.encode_descriptor(
        "mesh_ca_tls_handshake_failures",
        "TLS handshakes of a listener that came to nothing",
        None,
        MetricType::Counter,
    )?;
    // What is only written has none.
    let of_listeners = statuses.iter();
    for status in of_listeners.filter(|status| [GRPC, WEBHOOK, DNS].contains(&&*status.name)) {
        for (reason, count) in status.handshakes.counts() {
            let labels = [("listener", &*status.name), ("reason", reason)];
            PlainCount(count).encode(handshakes.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn gauge_into(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    gauge: &ConstGauge<u64>,
) -> fmt::Result {
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn count_into(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    count: u64,
) -> fmt::Result {
    PlainCount(count).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

#[cfg(test)]
mod tests {
    use ca_core::testing::{TestCa, now};
    use ca_core::{BundleStore, CaRequest, Csr, KeyKind, PrivateKey, create_csr_pem};

    use super::*;

    fn metrics_of(bundles: BundleStore) -> Arc<Metrics> {
        let one = std::num::NonZeroUsize::MIN;
        let limits = crate::admission::Limits {
            waiting: one,
            waiting_of_one_caller: one,
        };
        let admission = Admission::start(one, limits).unwrap();
        let signing = Signing::Own(bundles);
        Metrics::new(signing, None, admission, ServingStatuses::default())
    }

    fn page(metrics: &Metrics) -> String {
        let mut text = String::new();
        encode_registry(&mut text, &metrics.registry).unwrap();
        text
    }

    fn value(page: &str, name: &str) -> f64 {
        let mut lines = page.lines();
        let line = lines.find(|l| l.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn the_names_are_istios_to_the_letter() {
        let metrics = metrics_of(TestCa::new("td").bundles());
        metrics.csr_received();
        metrics.csr_received();
        metrics.issued(Duration::from_micros(90));
        for refused in [
            Refused::Authentication,
            Refused::Csr,
            Refused::Ttl,
            Refused::NotReady,
            Refused::CertificateGeneration,
            // In none of Istio's counters.
            Refused::Address,
            Refused::Overload,
        ] {
            metrics.refused(refused);
        }
        let text = page(&metrics);
        for line in [
            "# TYPE citadel_server_csr_count counter",
            "citadel_server_csr_count 2",
            "citadel_server_authentication_failure_count 1",
            "citadel_server_csr_sign_err_count{error=\"CSR_ERROR\"} 1",
            "citadel_server_csr_sign_err_count{error=\"TTL_ERROR\"} 1",
            "citadel_server_csr_sign_err_count{error=\"CA_NOT_READY\"} 1",
            "citadel_server_csr_sign_err_count{error=\"CERT_GEN_ERROR\"} 1",
            "citadel_server_success_cert_issuance_count 1",
            "mesh_ca_issuance_seconds_count 1",
            "mesh_ca_bundle_generation 1",
            "mesh_ca_waiting 0",
            "# TYPE mesh_ca_turned_away counter",
            "mesh_ca_turned_away 0",
            "mesh_ca_turned_away_by_address 1",
            "# TYPE mesh_ca_serving_certificate_failures counter",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "no line {line:?} in\n{text}"
            );
        }
        let errors = text.matches("\ncitadel_server_csr_sign_err_count{").count();
        assert_eq!(errors, 4, "{text}");
        let left = value(&text, "citadel_server_root_cert_expiry_seconds");
        assert!((86_000.0..=86_400.0).contains(&left));
        assert!(value(&text, "citadel_server_root_cert_expiry_timestamp") > 1.7e9);
        assert!(
            !text.contains("citadel_server_cert_chain_expiry"),
            "a self-signed CA has no chain"
        );
    }

    #[test]
    fn the_ends_of_certificates_are_those_of_the_bundle_in_use() {
        let root = TestCa::new("td");
        let below = |hours: u64| {
            let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
            let csr = Csr::from_pem(create_csr_pem(&key, &[]).unwrap().as_bytes()).unwrap();
            let request = CaRequest::new(csr, "td", "below", Duration::from_secs(hours * 3600));
            let issued = root.authority().issue_ca(&request, now()).unwrap();
            let (chain, roots) = (issued.chain().clone(), issued.roots().clone());
            KeyCertBundle::new(Arc::new(key), chain, roots, now()).unwrap()
        };
        let bundles = BundleStore::new(below(1));
        let metrics = metrics_of(bundles.clone());
        let roots_end = root.roots().not_after().unix_timestamp();
        for hours in [2, 3] {
            bundles.replace(below(hours));
            let text = page(&metrics);
            let end = bundles.current().chain().leaf().not_after();
            let shown = value(&text, "citadel_server_cert_chain_expiry_timestamp");
            assert_eq!(shown, end.unix_timestamp() as f64);
            let left = value(&text, "citadel_server_cert_chain_expiry_seconds");
            assert!((left - hours as f64 * 3600.0).abs() < 60.0, "{left}");
            let shown = value(&text, "citadel_server_root_cert_expiry_timestamp");
            assert_eq!(shown, roots_end as f64);
        }
    }
}
