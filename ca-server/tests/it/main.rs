//! The server as its users meet it: the real program, real TLS, real gRPC.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a test cannot do ends it"
)]

mod authentication;
mod authority;
mod client;
mod configuration;
mod grpc;
mod issuance;
mod issuer;
mod operation;
mod process;
mod registration;
mod running;
mod screen;
mod serving;
#[cfg(feature = "otel")]
mod telemetry;
mod upstream;
mod wire;
