//! What does a certificate cost, from PEM to PEM, for each key of the CA and of the request, beside its floor?

use anyhow::{Result, ensure};
use benches::{ALL_KINDS, ALL_LIBRARIES, Floor, Issuance, Material, label};
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
        for ca in ALL_KINDS {
            for csr in ALL_KINDS {
                let name = format!(
                    "sign/{}/{} CA/{} CSR",
                    library.name(),
                    label(ca),
                    label(csr)
                );
                let floor = Floor::new(library, &material, ca, csr)?;
                let issuance = Issuance::new(library, &material, ca, csr)?;
                ensure!(issuance.issue().is_ok(), "{name} fails");
                let mut group = criterion.benchmark_group(name);
                group.bench_function("floor", |b| b.iter(|| floor.verify_and_sign()));
                group.bench_function("mesh-ca", |b| b.iter(|| issuance.issue()));
                group.finish();
            }
        }
    }
    criterion.final_summary();
    Ok(())
}
