//! Serving Envoy: the secret discovery service.

mod calls;
mod delta;
mod first_message;
mod ledger;
mod resource;
mod roll;
mod server;
mod session;
mod stream;

pub(crate) use calls::answer;
pub(crate) use ledger::Verdict;
pub(crate) use roll::Roll;
pub(crate) use server::SecretService;

#[cfg(test)]
mod testing;
