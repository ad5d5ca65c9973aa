//! `bench kubernetes`: what it costs to believe the service accounts of a cluster, measured by `benches/benches/kubernetes.rs`.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::document::{self, Section};
use crate::control_plane::{ControlPlane, ControlPlaneArgs};
use crate::workspace;

/// Into the document.
pub(super) fn run(args: &ControlPlaneArgs) -> Result<()> {
    let control_plane = ControlPlane::find(args)?;
    println!("building");
    let programs = ["build", "--release", "--bin", "ca-server", "--bin", "fleet"];
    workspace::run(&mut workspace::cargo(&programs))?;
    // Before our own load is in it.
    let machine = document::machine()?;
    let mut bench = workspace::cargo(&["bench", "-p", "benches", "--bench", "kubernetes"]);
    let said = workspace::output(control_plane.show_to(&mut bench))?;
    println!("{said}");
    let last = said.lines().last().unwrap_or_default();
    let findings: Vec<Value> =
        serde_json::from_str(last).context("it did not end with what it has found")?;

    let mut text = String::from(METHOD);
    for (what, value) in machine.iter().filter(|(what, _)| *what != "valgrind") {
        text.push_str(&format!("| {what} | {value} |\n"));
    }
    text.push_str("\n| target | asked | measured | |\n|---|---|---|---|\n");
    for finding in &findings {
        let [target, asked, measured] =
            ["target", "asked", "measured"].map(|key| finding[key].as_str().unwrap_or_default());
        let met = finding["met"] == Value::Bool(true);
        text.push_str(&document::row(target, asked, measured, met));
    }
    println!("{text}");
    document::write_section(Section::Kubernetes, &text)
}

const METHOD: &str = "\
Written by `cargo xtask bench kubernetes`: a real API server with its etcd on this machine, and a thousand pods in it (nobody runs
them), each with a service account and a bound token of its own. They ask `ca-server`, as it is released, over gRPC and TLS 1.3 with
P-256 keys: eight on a connection, 32 requests under way, each with its token. For the rates the server has one core and the clients
the other; the middle of three rounds of both, each with a server of its own. *Istio's limits* are those of its client for the API
server, kept by a proxy in front of it: 80 requests a second, 160 at once, watches aside; there each request is a TokenReview, and no
answer is used twice. *Start at once* means that all connect at the same moment, to a server that has just started on both cores,
beside the clients and the API server, and try again for as long as they are turned away.

| | |
|---|---|
";
