//! OpenTelemetry traces: what became of a request, step by step, sent to a collector.
//!
//! Behind the feature `otel`. Without it every type here is empty and every call nothing; with it, and without a
//! collector, a request pays one look at an empty option. Traces never hold what a caller showed or asked for, only who it is
//! and how it ended; and a collector that is slow or away costs spans, never a request.

#[cfg(feature = "otel")]
mod collector;
#[cfg(feature = "otel")]
mod encoding;
#[cfg(feature = "otel")]
mod exporter;
#[cfg(not(feature = "otel"))]
mod off;
#[cfg(feature = "otel")]
mod parent;
#[cfg(feature = "otel")]
mod trace;

#[cfg(feature = "otel")]
pub use collector::TelemetryError;
#[cfg(feature = "otel")]
pub(crate) use collector::{Config, Endpoint};
#[cfg(feature = "otel")]
pub(crate) use exporter::{Exporter, SpanCounts, start};
#[cfg(not(feature = "otel"))]
pub use off::TelemetryError;
#[cfg(not(feature = "otel"))]
pub(crate) use off::{Config, Exporter, SpanCounts, Telemetry, Trace, start};
#[cfg(feature = "otel")]
pub(crate) use trace::{Telemetry, Trace};

/// A part of the work on a request: a span below that of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Authenticate,
    Authorize,
    /// Waits for a thread.
    Queue,
    /// Of the request itself.
    Check,
    Sign,
}
