//! `interop kubernetes`: the server beside a real API server, with the access that our chart gives it, and the chart itself.

mod control_plane;
mod crds;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::fact;
use crate::chart::Chart;
use crate::{manifests, workspace};

/// What the tests show, by the files that they are in.
const COVERED: [(&str, &str); 2] = [
    (
        "permissions",
        "what the shipped service account may do, and what it may not",
    ),
    (
        "deployment",
        "every manifest is accepted by the API server, and one with a fault is not",
    ),
];

/// `assets`: a folder with `kube-apiserver` and `etcd`; they are built without it.
pub(super) fn run(assets: Option<&Path>) -> Result<()> {
    println!("\nkubernetes: a real API server with its etcd, and no controllers");
    let start = Instant::now();
    let control_plane = control_plane::find(assets)?;
    let chart = Chart::prepare()?;
    manifests::compare(&chart)?;
    let rendered = tempfile::tempdir().context("no temporary folder")?;
    let renderings = manifests::render_examples(&chart, rendered.path())?;
    let mut tests = workspace::cargo(&["test", "-p", "ca-server", "--test", "kubernetes"]);
    tests
        .args(["--locked", "--", "--ignored"])
        .env("KUBEBUILDER_ASSETS", &control_plane)
        .env("CERT_MANAGER_CRDS", crds::cert_manager()?)
        .env("PROMETHEUS_OPERATOR_CRDS", crds::prometheus_operator()?)
        .env("RENDERED_MANIFESTS", rendered.path());
    fact("API server", control_plane::version(&control_plane)?);
    fact(
        "chart",
        format!("{renderings} renderings, without a warning"),
    );
    fact("prepared", format!("in {} s", start.elapsed().as_secs()));
    workspace::run(&mut tests).context("kubernetes")?;
    for (label, covered) in COVERED {
        fact(label, covered);
    }
    println!("kubernetes: passed, in {} s", start.elapsed().as_secs());
    Ok(())
}
