//! A fleet of workloads that ask one CA for certificates, over real gRPC and TLS: thousands of them on a few threads.
//!
//! Keys, CSRs and tokens are made before anything is measured, and a client checks no more of an answer than that it
//! has certificates in it: what is measured is the CA, the transport, and as little of the client as possible. Clients
//! and CA share what the machine has; `taskset` gives each its own core.

mod abuse;
mod args;
mod bare;
mod connection;
mod failure;
mod histogram;
mod load;
mod material;
mod noise;
mod pace;
mod plot;
mod progress;
mod run;
mod schedule;
mod server_process;
mod summary;
mod tally;
mod target;
mod tenths;
mod workload;

pub use args::FleetArgs;
pub use run::run;
