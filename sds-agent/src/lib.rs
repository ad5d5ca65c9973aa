//! A small certificate agent that serves Envoy over SDS.
//!
//! The agent makes a key, has it certified by an Istio-compatible CA, keeps the certificate fresh,
//! and hands key, chain and roots to Envoy over a Unix socket:
//!
//! ```text
//!    app (wires everything)
//!      +--> serve      the Unix socket
//!      |      +--> sds/           answers Envoy -> secrets/
//!      |      +--> workload_api   answers others   secrets/    <-- gateway/, Secrets of a cluster (a feature)
//!      +--> output     writes files -------------> secrets/    <-- files that others keep
//!      +--> admin      health, readiness, metrics  secrets/
//!                                                     | asks through
//!                                                     v
//!                                                 ca_client/    the Istio certificate service, Vault, Google, a folder
//!                                                     | proves who we are with
//!                                                     v
//!                                                 credential/   a token, a client certificate
//!                                                     | both go through
//!                                                     v
//!                                                 transport/    TLS, HTTP/1.1, JSON
//! ```
//!
//! What the crate is *not*: it never decides which identity a workload has (its flags say, and the
//! CA judges), it never signs, and it reads nothing that Envoy says about itself.
//!
//! The binary is `main.rs`; everything it does is [`Config`] and [`App`].

mod accept;
mod admin;
mod app;
mod args;
mod ca_client;
mod clock;
mod config;
mod credential;
mod debug;
#[cfg(feature = "gateway")]
mod gateway;
mod metrics;
mod output;
mod roots_file;
mod sds;
mod secrets;
mod serve;
mod socket;
mod status;
mod transport;
mod unix_authority;
mod workload_api;

pub use app::{App, AppError, Stop};
pub use args::Args;
pub use config::{Config, ConfigError};
#[cfg(feature = "gateway")]
pub use gateway::GatewayError;
pub use status::{AgentStatus, status_command};
