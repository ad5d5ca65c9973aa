//! Work that is counted, not timed: `valgrind` counts the instructions of this program, and its own allocator the
//! allocations. `cargo xtask bench gate` runs it and holds the limits.
//!
//! ```text
//! gate make <folder>                      keys and requests, so that every count is of the same work
//! gate issue <library> <folder> <count>   so many issuances
//! gate floor <library> <folder> <count>   so many times the bare cryptography
//! gate allocations <library> <folder>     prints allocations and bytes of an issuance, then of its floor
//! ```
//!
//! P-256 everywhere: the cheapest cryptography, beside which everything else weighs most.

use std::alloc::System;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use benches::{Floor, Issuance, Library, Material};
use ca_core::KeyKind;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use time::OffsetDateTime;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KIND: KeyKind = KeyKind::EcdsaP256;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["make", folder] => make(folder),
        ["issue", library, folder, count] => {
            let issuance = Issuance::new(named(library)?, &material(folder), KIND, KIND)?;
            for _ in 0..count.parse()? {
                issuance.issue()?;
            }
            Ok(())
        }
        ["floor", library, folder, count] => {
            let floor = Floor::new(named(library)?, &material(folder), KIND, KIND)?;
            for _ in 0..count.parse()? {
                ensure!(floor.verify_and_sign(), "the floor fails");
            }
            Ok(())
        }
        ["allocations", library, folder] => allocations(named(library)?, folder),
        _ => bail!("see the first lines of gate.rs for what to type"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an edge: the roots are to be valid now"
)]
fn make(folder: &str) -> Result<()> {
    material(folder).make(OffsetDateTime::now_utc())
}

fn allocations(library: Library, folder: &str) -> Result<()> {
    let material = material(folder);
    let issuance = Issuance::new(library, &material, KIND, KIND)?;
    let floor = Floor::new(library, &material, KIND, KIND)?;
    let ours = counted(|| issuance.issue())?;
    let bare = counted(|| Ok(floor.verify_and_sign()))?;
    for (allocations, bytes) in [ours, bare] {
        println!("{allocations} {bytes}");
    }
    Ok(())
}

/// The most of several times: what a library allocates depends on the length of its signature. Not of the first time,
/// in which libraries set themselves up.
fn counted<T>(work: impl Fn() -> Result<T>) -> Result<(usize, usize)> {
    work()?;
    let mut most = (0, 0);
    for _ in 0..TRIES {
        let region = Region::new(ALLOCATOR);
        let result = work()?;
        let counted = region.change();
        drop(result);
        let allocations = counted.allocations + counted.reallocations;
        most = most.max((allocations, counted.bytes_allocated));
    }
    Ok(most)
}

const TRIES: usize = 64;

fn material(folder: &str) -> Material<'_> {
    Material(Path::new(folder))
}

fn named(library: &str) -> Result<Library> {
    Library::named(library).with_context(|| format!("no library {library:?}"))
}
