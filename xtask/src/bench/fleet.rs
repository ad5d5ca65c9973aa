//! `bench fleet`: our server under the load of a fleet of workloads, over gRPC and TLS, and what it does when it is too much.
//! `bench malformed`: what it does with traffic that no client should send.
//!
//! Each scenario has a server of its own. Where it is about one core, the server has the first and the clients the
//! second, and the cryptography of a certificate is measured on the first while the second is as busy.

mod document;
mod malformed;
mod overload;
mod replaced;
mod server;
mod speed;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::document::{self as benchmarks, Section};
use crate::lab::Lab;
use crate::workspace;

/// One target and what was found.
struct Finding {
    target: &'static str,
    asked: String,
    measured: String,
    met: bool,
}

/// What was found, and on what machine.
struct Measured {
    machine: Vec<(&'static str, String)>,
    findings: Vec<Finding>,
}

/// The programs, and how long each measurement takes.
struct Bench<'a> {
    lab: &'a Lab,
    server: PathBuf,
    fleet: PathBuf,
    seconds: u32,
}

/// All scenarios of load, written into their section of `docs/benchmarks.md`.
pub(super) fn run(seconds: u32) -> Result<()> {
    let measured = measure("fleet", seconds, |bench| {
        let mut findings = speed::run(bench)?;
        findings.extend(overload::run(bench)?);
        findings.extend(replaced::run(bench)?);
        Ok(findings)
    })?;
    document::write(Section::Fleet, document::LOAD, &measured)
}

/// Malformed traffic, into a section of its own: it takes long, and needs no quiet machine.
pub(super) fn malformed(minutes: u32) -> Result<()> {
    let measured = measure("malformed", 0, |bench| malformed::run(bench, minutes))?;
    document::write(Section::Malformed, document::MALFORMED, &measured)
}

fn measure(
    name: &str,
    seconds: u32,
    scenarios: impl FnOnce(&Bench<'_>) -> Result<Vec<Finding>>,
) -> Result<Measured> {
    let programs = build("dist", &["--profile", "dist"])?;
    let machine = benchmarks::machine()?;
    let findings = Lab::run(name, |lab| {
        scenarios(&Bench {
            lab,
            server: programs.join("ca-server"),
            fleet: programs.join("fleet"),
            seconds,
        })
    })?;
    Ok(Measured { machine, findings })
}

/// A few seconds of everything that does not depend on how fast the machine is. Without optimisation.
pub(super) fn smoke() -> Result<()> {
    let programs = build("debug", &[])?;
    Lab::run("fleet-smoke", |lab| {
        let bench = Bench {
            lab,
            server: programs.join("ca-server"),
            fleet: programs.join("fleet"),
            seconds: 2,
        };
        let findings = replaced::run(&bench)?;
        for finding in findings {
            ensure!(finding.met, "{}: {}", finding.target, finding.measured);
        }
        malformed::smoke(&bench)
    })
}

fn build(folder: &str, profile: &[&str]) -> Result<PathBuf> {
    println!("building");
    let mut cargo = workspace::cargo(&["build", "--bin", "ca-server", "--bin", "fleet"]);
    workspace::run(cargo.args(profile))?;
    Ok(workspace::target_directory()?.join(folder))
}

/// A number in what the driver wrote, by its path.
fn number(json: &Value, path: &str) -> Result<f64> {
    json.pointer(path)
        .and_then(Value::as_f64)
        .with_context(|| format!("the driver wrote no {path}"))
}
