//! Serving Envoy: the secret discovery service.

mod delta;
mod first_message;
mod ledger;
mod resource;
mod roll;
mod server;
mod session;
mod stream;

pub(crate) use first_message::FirstMessage;
pub(crate) use ledger::Verdict;
pub(crate) use roll::Roll;
pub(crate) use server::SecretService;

#[cfg(test)]
mod testing;
