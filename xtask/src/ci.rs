//! `ci`: everything that a change must pass, except the tests. Each check runs, then all failures are named.

mod dependencies;
mod house_rules;
mod named_tests;
mod packages;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{codegen, wait, workspace};

type Check = fn() -> Result<()>;

const CHECKS: [(&str, Check); 9] = [
    ("house rules", house_rules::check),
    ("named tests", named_tests::check),
    ("formatting", formatting),
    ("dependencies", dependencies::check),
    ("generated code", generated_code),
    ("lints", lints),
    ("documentation", documentation),
    ("package contents", packages::metadata),
    ("packages", packages::build),
];

/// Runs every check, also after one has failed.
pub(crate) fn run() -> Result<()> {
    let mut results = Vec::new();
    for (name, check) in CHECKS {
        results.push(timed(name, check));
        if wait::stopped() {
            bail!("interrupted");
        }
    }
    println!("\n{:<18} {:>8}", "check", "seconds");
    for (name, took, passed) in &results {
        let verdict = if *passed { "passed" } else { "FAILED" };
        println!("{name:<18} {:>8.1}  {verdict}", took.as_secs_f64());
    }
    let failed: Vec<_> = results
        .iter()
        .filter(|(_, _, passed)| !passed)
        .map(|(name, ..)| *name)
        .collect();
    if !failed.is_empty() {
        bail!(
            "{} of {} checks failed: {}",
            failed.len(),
            results.len(),
            failed.join(", ")
        );
    }
    println!("all {} checks passed", results.len());
    Ok(())
}

fn timed(name: &'static str, check: Check) -> (&'static str, Duration, bool) {
    println!("\n== {name}");
    let begin = Instant::now();
    let result = check();
    if let Err(error) = &result {
        eprintln!("FAILED {name}: {error:#}");
    }
    (name, begin.elapsed(), result.is_ok())
}

fn formatting() -> Result<()> {
    workspace::run(&mut workspace::cargo(&["fmt", "--all", "--check"]))
}

fn generated_code() -> Result<()> {
    codegen::run(true)
}

fn lints() -> Result<()> {
    let deny = ["--", "-D", "warnings"];
    workspace::run(workspace::cargo(&["clippy", "--workspace", "--all-targets"]).args(deny))?;
    // With traces and with gateways, which the default build leaves out.
    let traces = ["clippy", "--package", "ca-server", "--features", "otel"];
    workspace::run(workspace::cargo(&traces).arg("--all-targets").args(deny))?;
    let gateway = ["clippy", "--package", "sds-agent", "--features", "gateway"];
    workspace::run(workspace::cargo(&gateway).arg("--all-targets").args(deny))?;
    // Once more as a stranger builds it: in the workspace its users turn its features on.
    workspace::run(workspace::cargo(&["clippy", "--package", "ca-core"]).args(deny))
}

fn documentation() -> Result<()> {
    let mut doc = workspace::cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    workspace::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}
