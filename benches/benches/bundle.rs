//! What does a reader pay for the current bundle, alone and while another thread replaces it without pause?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use benches::{Issuance, Library, Material};
use ca_core::KeyKind;
use criterion::Criterion;
use time::OffsetDateTime;

#[expect(
    clippy::disallowed_methods,
    reason = "an edge: the roots are to be valid now"
)]
fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let material = Material(folder.path());
    material.make(OffsetDateTime::now_utc())?;
    let issuance = Issuance::new(
        Library::Ring,
        &material,
        KeyKind::EcdsaP256,
        KeyKind::EcdsaP256,
    )?;
    let bundles = issuance.bundles();
    let fixed = bundles.current();

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("bundle");
    // The floor: the count of owners must be changed, whatever the cell is.
    group.bench_function("floor", |b| b.iter(|| Arc::clone(&fixed)));
    group.bench_function("current", |b| b.iter(|| bundles.current()));
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                bundles.replace((*fixed).clone());
            }
        });
        group.bench_function("current, during replacements", |b| {
            b.iter(|| bundles.current());
        });
        done.store(true, Ordering::Relaxed);
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}
