//! What does it cost to read a request and check its signature, beside the bare check?

use std::hint::black_box;

use anyhow::Result;
use benches::{ALL_KINDS, ALL_LIBRARIES, Floor, Issuance, Material, label};
use ca_core::{Csr, KeyKind};
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
    let mut criterion = Criterion::default().configure_from_args();
    for library in ALL_LIBRARIES {
        for kind in ALL_KINDS {
            let floor = Floor::new(library, &material, KeyKind::EcdsaP256, kind)?;
            let issuance = Issuance::new(library, &material, KeyKind::EcdsaP256, kind)?;
            let mut group =
                criterion.benchmark_group(format!("csr/{}/{}", library.name(), label(kind)));
            group.bench_function("floor", |b| b.iter(|| floor.verify()));
            group.bench_function("mesh-ca", |b| {
                b.iter(|| Csr::from_pem_with(black_box(issuance.csr_pem()), library.backend()));
            });
            group.finish();
        }
    }
    criterion.final_summary();
    Ok(())
}
