//! Flags about traces. There are none without the feature `otel`.

#[cfg(feature = "otel")]
use std::path::PathBuf;

#[cfg(feature = "otel")]
use crate::telemetry::Endpoint;

/// Where traces go.
#[derive(Debug, clap::Args)]
#[cfg_attr(feature = "otel", command(next_help_heading = "Traces"))]
pub(crate) struct TelemetryArgs {
    /// Send a trace of each request to this OpenTelemetry collector (OTLP over HTTP): `http://localhost:4318`. Default:
    /// nothing is collected.
    #[cfg(feature = "otel")]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<Endpoint>,

    /// Certificates (PEM) that the collector is verified with, for an endpoint with https.
    #[cfg(feature = "otel")]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    pub(crate) otlp_certificate: Option<PathBuf>,
}
