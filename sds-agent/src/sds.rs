//! Serving Envoy: the secret discovery service.

mod delta;
mod ledger;
mod resource;
mod server;
mod session;
mod stream;

pub(crate) use server::SecretService;

#[cfg(test)]
mod testing;
