//! `interop kubernetes`: the server beside a real API server, with the access that our chart gives it, and the chart itself; and a
//! gateway's agent beside another.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::fact;
use crate::chart::Chart;
use crate::control_plane::{ControlPlane, ControlPlaneArgs};
use crate::{manifests, workspace};

/// What the tests show, by the files that they are in.
const COVERED: [(&str, &str); 8] = [
    (
        "permissions",
        "what the shipped service account may do, and what it may not",
    ),
    (
        "callers",
        "tokens, verified here or reviewed; deleted pods and accounts; other clusters; node proxies",
    ),
    (
        "state",
        "replicas that race for the root, Istio's root taken over, leaders killed in each stage, a minute without the API server",
    ),
    (
        "roots",
        "500 namespaces, all wiped and repaired; selection; ClusterTrustBundle; webhook configurations",
    ),
    (
        "registration",
        "the certificate API and cert-manager, with a stand-in for whoever signs: every way that a request can end",
    ),
    (
        "registration_server",
        "the whole server without a key, and a signer of the cluster for the listeners",
    ),
    (
        "deployment",
        "every manifest is accepted by the API server, and one with a fault is not",
    ),
    (
        "gateway",
        "an agent that serves Secrets to clients and to an Envoy: each change, every layout, what is not fit, its role, an outage",
    ),
];

pub(super) fn run(args: &ControlPlaneArgs) -> Result<()> {
    println!("\nkubernetes: a real API server with its etcd, and no controllers");
    let start = Instant::now();
    let control_plane = ControlPlane::find(args)?;
    let chart = Chart::prepare()?;
    manifests::compare(&chart)?;
    let rendered = tempfile::tempdir().context("no temporary folder")?;
    let renderings = manifests::render_examples(&chart, rendered.path())?;
    let mut tests = workspace::cargo(&["test", "-p", "ca-server", "--test", "kubernetes"]);
    tests.args(["--locked", "--", "--ignored"]);
    control_plane
        .show_to(&mut tests)
        .env("RENDERED_MANIFESTS", rendered.path());
    fact("API server", control_plane.version()?);
    fact(
        "chart",
        format!("{renderings} renderings, without a warning"),
    );
    fact("prepared", format!("in {} s", start.elapsed().as_secs()));
    workspace::run(&mut tests).context("kubernetes")?;
    let mut gateway = workspace::cargo(&["test", "-p", "sds-agent", "--features", "gateway"]);
    gateway
        .args(["--test", "gateway", "--locked", "--", "--ignored"])
        .env("ENVOY", super::envoy::program()?);
    workspace::run(control_plane.show_to(&mut gateway)).context("gateway")?;
    for (label, covered) in COVERED {
        fact(label, covered);
    }
    println!("kubernetes: passed, in {} s", start.elapsed().as_secs());
    Ok(())
}
