//! The certificates that we show, and the listeners that show them.
//!
//! A [`ServingPlan`] names certificates. Each is made before anything listens and has a keeper that replaces it: by
//! lifetime, and when the CA or the operator's files change. What is shown at the next handshake is in one cell for each listener;
//! connections that are open stay as they are.

mod certificate;
mod cluster_signer;
pub(crate) mod connection;
pub(crate) mod dns;
mod files;
mod folder;
mod gathered;
mod handshakes;
pub(crate) mod http;
mod idle;
mod issuer;
mod keeper;
mod listener;
mod plan;
mod preface;
mod rounds;
mod status;
mod tls;
pub(crate) mod webhook;

pub(crate) use cluster_signer::ClusterSigner;
pub(crate) use files::CertificateFiles;
pub(crate) use issuer::ServingIssuer;
pub(crate) use keeper::FIRST_RETRY;
pub use keeper::ServingError;
pub(crate) use listener::{Peer, sockets};
pub(crate) use plan::{DNS, GRPC, Issuers, Provider, Serving, ServingPlan, WEBHOOK};
pub(crate) use status::ServingStatuses;
pub(crate) use tls::{Compliance, CurrentTls, MinVersion, TlsPolicy};
pub use tls::{TlsError, TlsPolicyError};
