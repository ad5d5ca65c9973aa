//! What the benchmarks have in common: the same material, the same work and the same floor for all of them.
//!
//! The work is what a CA does between two messages: a CSR as PEM comes in, the certificate as PEM goes out. Its floor
//! is the cryptography that this cannot do without, called bare: one verification and one signature.
//!
//! - `benches/`: criterion, for people who change something and want to see what it did.
//! - `src/bin/gate.rs`: instructions and allocations, which are the same on a busy machine.
//! - `src/bin/side_by_side.rs`: times, in rounds in which everyone takes turns, with a peer in Go (`peer/`).
//!
//! `cargo xtask bench` runs the last two and writes `docs/benchmarks.md`.

pub mod fleet;
mod floor;
mod issuance;
mod kind;
mod library;
mod material;
mod peer;
mod rounds;
mod stopwatch;

pub use floor::{ConnectionFloor, Floor};
pub use issuance::Issuance;
pub use kind::{ALL_KINDS, label};
pub use library::{ALL_LIBRARIES, Library};
pub use material::Material;
pub use peer::{Peer, Report};
pub use rounds::{Contestant, Samples, median, median_ratio, minimum, run_rounds};
pub use stopwatch::{Stopwatch, Taken};
