//! A certificate authority for service meshes, wire-compatible with Istio: the server around [`ca_core`].
//!
//! It is composition and no more: who is calling is judged by [`ca_auth`], what a certificate holds is decided by
//! [`ca_core`]. What is here: the gRPC service and its status codes ([`Service`]), TLS that follows the current
//! certificate and roots, the admin listener, flags, and start-up ([`App`]).
//!
//! Start reading at `app.rs`, which names every part, then `service.rs`, which is one request from top to bottom.

#![deny(
    clippy::print_stdout,
    reason = "a reader may have gone: `output` prints"
)]

mod addresses;
mod admin;
mod admission;
mod announce;
mod app;
mod args;
mod audit;
mod authentication;
mod authority;
mod calls;
mod cli;
mod config;
mod control;
mod controllers;
mod evidence;
mod grpc;
mod health;
mod in_cluster;
mod kubernetes;
mod logging;
mod mesh_roots;
mod metrics;
mod node_agent;
mod observed;
mod output;
mod private_file;
mod refusals;
mod report;
mod roots_file;
mod service;
mod serving;
mod status;
mod telemetry;

pub use app::{App, AppError};
pub use args::{
    Args, Command, ConfigurationError, ExplainArgs, PolicyArgs, RotateArgs, Settings, StatusArgs,
    TokenArgs,
};
pub use authentication::{AuthenticatorsError, ClusterCallersError};
pub use authority::in_cluster::ClusterCaError;
pub use authority::plugged::PluggedError;
pub use authority::registration::RegistrationError;
pub use authority::rotator::RotationStep;
pub use authority::self_signed::SelfSignedError;
pub use authority::upstream::{FileError, OpenError};
pub use cli::run as run_command;
pub use cli::token::TokenKeyError;
pub use config::{
    AuthenticationError, ClusterCallersFlagsError, Config, ConfigError, RegistrationFlagsError,
    ServingConfigError, UpstreamFlagsError,
};
pub use controllers::SelectorError;
pub use kubernetes::ClusterError;
pub use logging::start_logging;
pub use service::Service;
pub use serving::{ServingError, TlsError, TlsPolicyError};
pub use telemetry::TelemetryError;
