//! Serving Envoy: the secret discovery service.

mod resource;
mod server;
mod session;

pub(crate) use resource::SecretName;
pub(crate) use server::SecretService;
