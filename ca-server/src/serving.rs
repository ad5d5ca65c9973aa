//! The server's own certificate, and the listener that follows it.

mod certificate;
mod listener;
mod tls;

pub use certificate::ServingError;
pub(crate) use certificate::{Renewal, ServingPlan, keep_renewed, start};
pub(crate) use listener::tls_connections;
pub(crate) use tls::CurrentTls;
pub use tls::TlsError;
