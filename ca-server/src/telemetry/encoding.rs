//! What was recorded, as OTLP writes it. Names of attributes are OpenTelemetry's where it has one.

use std::fmt;
use std::time::Duration;

use ca_core::SpiffeId;
use ca_proto::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use ca_proto::opentelemetry::proto::common::v1::any_value::Value;
use ca_proto::opentelemetry::proto::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use ca_proto::opentelemetry::proto::resource::v1::Resource;
use ca_proto::opentelemetry::proto::trace::v1::span::SpanKind;
use ca_proto::opentelemetry::proto::trace::v1::status::StatusCode;
use ca_proto::opentelemetry::proto::trace::v1::{
    ResourceSpans, ScopeSpans, Span, SpanFlags, Status,
};
use rustls::crypto::SecureRandom;
use time::OffsetDateTime;
use tonic::Code;

use super::Step;
use super::trace::{Recorded, Taken};

/// Draws the names of spans: nobody needs them before they are sent.
pub(super) struct Encoding {
    random: &'static dyn SecureRandom,
}

impl Default for Encoding {
    fn default() -> Self {
        Self {
            random: rustls::crypto::aws_lc_rs::default_provider().secure_random,
        }
    }
}

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoding")
    }
}

impl Encoding {
    pub(super) fn request(&self, batch: Vec<Recorded>) -> ExportTraceServiceRequest {
        let mut spans = Vec::new();
        for recorded in batch {
            self.add(recorded, &mut spans);
        }
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![
                        attribute("service.name", text("mesh-ca")),
                        attribute("service.version", text(env!("CARGO_PKG_VERSION"))),
                    ],
                }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                }],
            }],
        }
    }

    /// The span of a request, and those of its steps below it.
    fn add(&self, recorded: Recorded, spans: &mut Vec<Span>) {
        let span_id = self.draw::<8>();
        let (trace_id, parent_span_id, trace_state, remote) = match recorded.parent {
            Some(parent) => (
                parent.trace_id.to_vec(),
                parent.span_id.to_vec(),
                parent.trace_state,
                SpanFlags::ContextIsRemoteMask as u32,
            ),
            None => (self.draw::<16>(), Vec::new(), String::new(), 0),
        };
        let (service, method) = recorded.method.path();
        let mut attributes = vec![
            attribute("rpc.system", text("grpc")),
            attribute("rpc.service", text(service)),
            attribute("rpc.method", text(method)),
            attribute(
                "rpc.grpc.status_code",
                Value::IntValue(i32::from(recorded.code).into()),
            ),
        ];
        if let Some((identities, authenticator)) = &recorded.caller {
            let identities = identities.as_slice().iter().map(SpiffeId::as_str);
            let values = identities.map(|identity| AnyValue {
                value: Some(text(identity)),
            });
            let identities = Value::ArrayValue(ArrayValue {
                values: values.collect(),
            });
            attributes.push(attribute("mesh_ca.identities", identities));
            attributes.push(attribute("mesh_ca.authenticator", text(authenticator)));
        }
        spans.extend(
            recorded
                .steps
                .iter()
                .map(|Taken { step, after, took }| Span {
                    trace_id: trace_id.clone(),
                    span_id: self.draw::<8>(),
                    parent_span_id: span_id.clone(),
                    trace_state: trace_state.clone(),
                    flags: SAMPLED,
                    name: name(*step).into(),
                    kind: SpanKind::Internal.into(),
                    start_time_unix_nano: nanoseconds(recorded.begun, *after),
                    end_time_unix_nano: nanoseconds(recorded.begun, *after + *took),
                    ..Span::default()
                }),
        );
        spans.push(Span {
            trace_id,
            span_id,
            parent_span_id,
            trace_state,
            flags: SAMPLED | remote,
            name: format!("{service}/{method}"),
            kind: SpanKind::Server.into(),
            start_time_unix_nano: nanoseconds(recorded.begun, Duration::ZERO),
            end_time_unix_nano: nanoseconds(recorded.begun, recorded.took),
            attributes,
            // Without a message: what failed may hold what the caller sent, and is in the log.
            status: is_ours(recorded.code).then(|| Status {
                code: StatusCode::Error.into(),
                message: String::new(),
            }),
        });
    }

    fn draw<const N: usize>(&self) -> Vec<u8> {
        let mut bytes = [0; N];
        // It cannot fail once the process has a key; and then spans would be without a name, which collectors refuse.
        let _ = self.random.fill(&mut bytes);
        bytes.to_vec()
    }
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Authenticate => "authenticate",
        Step::Authorize => "authorize",
        Step::Queue => "queue",
        Step::Check => "check",
        Step::Sign => "sign",
    }
}

/// Whether the fault is the server's: the codes that OpenTelemetry counts as errors of one.
fn is_ours(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn nanoseconds(begun: OffsetDateTime, after: Duration) -> u64 {
    u64::try_from((begun + after).unix_timestamp_nanos()).unwrap_or_default()
}

fn text(text: &str) -> Value {
    Value::StringValue(text.into())
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

/// The trace is recorded, and it is known whether the parent is elsewhere.
const SAMPLED: u32 = 1 | SpanFlags::ContextHasIsRemoteMask as u32;
