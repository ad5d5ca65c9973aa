//! Calls, under the names that go-grpc-prometheus gives them and dashboards know.

use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tonic::{Code, Status};

use super::PlainCounter;

/// Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct RpcMetrics {
    started: Family<Method, PlainCounter>,
    handled: Family<Handled, PlainCounter>,
    received: Family<Method, PlainCounter>,
    sent: Family<Method, PlainCounter>,
    seconds: Family<Method, Histogram>,
    in_flight: Gauge,
}

/// A method of one of our services. All of ours are unary.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Method {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handled {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

impl Method {
    pub(crate) const CREATE_CERTIFICATE: Self =
        Self::unary("istio.v1.auth.IstioCertificateService", "CreateCertificate");
    pub(crate) const HANDLE_CSR: Self = Self::unary("istio.v1.auth.IstioCAService", "HandleCSR");

    /// Its service and its name.
    #[cfg(feature = "otel")]
    pub(crate) fn path(&self) -> (&'static str, &'static str) {
        (self.grpc_service, self.grpc_method)
    }

    const fn unary(grpc_service: &'static str, grpc_method: &'static str) -> Self {
        Self {
            grpc_type: "unary",
            grpc_service,
            grpc_method,
        }
    }
}

impl Default for RpcMetrics {
    fn default() -> Self {
        Self {
            started: Family::default(),
            handled: Family::default(),
            received: Family::default(),
            sent: Family::default(),
            // The default buckets of the Go client, as there.
            seconds: Family::new_with_constructor(|| {
                Histogram::new([
                    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                ])
            }),
            in_flight: Gauge::default(),
        }
    }
}

impl RpcMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        for (name, help, family) in [
            ("grpc_server_started_total", "Calls begun", &self.started),
            (
                "grpc_server_msg_received_total",
                "Messages received",
                &self.received,
            ),
            ("grpc_server_msg_sent_total", "Messages sent", &self.sent),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "grpc_server_handled_total",
            "Calls ended, by their status",
            self.handled.clone(),
        );
        registry.register(
            "grpc_server_handling_seconds",
            "From the beginning of a call to its end",
            self.seconds.clone(),
        );
        registry.register(
            "mesh_ca_in_flight",
            "Calls under way",
            self.in_flight.clone(),
        );
    }

    /// A call begins. It ends when the value is told how, or goes because its caller has gone.
    pub(crate) fn begin(&self, method: Method) -> Call<'_> {
        // One message makes a call of this type, and it has been read when we learn of it.
        self.received.get_or_create(&method).0.inc();
        self.begin_unread(method)
    }

    /// One whose message nobody will read.
    pub(crate) fn begin_unread(&self, method: Method) -> Call<'_> {
        self.started.get_or_create(&method).0.inc();
        self.in_flight.inc();
        Call {
            metrics: self,
            method,
            since: Instant::now(),
            code: Code::Cancelled,
        }
    }
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    metrics: &'a RpcMetrics,
    method: Method,
    since: Instant,
    code: Code,
}

impl Call<'_> {
    pub(crate) fn end<T>(mut self, result: &Result<T, Status>) {
        self.code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
        if result.is_ok() {
            self.metrics.sent.get_or_create(&self.method).0.inc();
        }
    }

    /// It ends with this.
    pub(crate) fn refused(mut self, status: &Status) {
        self.code = status.code();
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let Method {
            grpc_type,
            grpc_service,
            grpc_method,
        } = self.method;
        let handled = Handled {
            grpc_type,
            grpc_service,
            grpc_method,
            grpc_code: go_name(self.code),
        };
        self.metrics.handled.get_or_create(&handled).0.inc();
        let seconds = self.metrics.seconds.get_or_create(&self.method);
        seconds.observe(self.since.elapsed().as_secs_f64());
        self.metrics.in_flight.dec();
    }
}

/// As Go prints codes.
fn go_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn calls_are_counted_by_how_they_end_also_when_the_caller_goes() {
        let (metrics, mut registry) = (RpcMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let begin = || metrics.begin(Method::CREATE_CERTIFICATE);
        begin().end(&Ok(()));
        begin().end::<()>(&Err(Status::unauthenticated("")));
        drop(begin());
        metrics
            .begin_unread(Method::CREATE_CERTIFICATE)
            .refused(&Status::resource_exhausted(""));
        let waiting = begin();
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        drop(waiting);
        let method = "grpc_type=\"unary\",grpc_service=\"istio.v1.auth.IstioCertificateService\",grpc_method=\"CreateCertificate\"";
        for line in [
            format!("grpc_server_started_total{{{method}}} 5"),
            format!("grpc_server_msg_received_total{{{method}}} 4"),
            format!("grpc_server_msg_sent_total{{{method}}} 1"),
            format!("grpc_server_handled_total{{{method},grpc_code=\"OK\"}} 1"),
            format!("grpc_server_handled_total{{{method},grpc_code=\"Unauthenticated\"}} 1"),
            format!("grpc_server_handled_total{{{method},grpc_code=\"Canceled\"}} 1"),
            format!("grpc_server_handled_total{{{method},grpc_code=\"ResourceExhausted\"}} 1"),
            format!("grpc_server_handling_seconds_count{{{method}}} 4"),
            "mesh_ca_in_flight 1".into(),
        ] {
            assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
        }
    }
}
