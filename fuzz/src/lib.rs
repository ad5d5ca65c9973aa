//! What the fuzz targets share. Each target is a file of its own in `fuzz_targets/`.
//!
//! Nothing here is random but serial numbers and signatures, so that an input that fails once fails always.

#![expect(
    clippy::missing_panics_doc,
    reason = "to panic is how a target tells that a promise is broken"
)]

pub mod certified;
pub mod der;
pub mod fixed;
pub mod folder;
pub mod forwarded;
pub mod glob;
pub mod reply;
pub mod rulebook;
pub mod second_opinion;
pub mod token;
