//! Malformed traffic for minutes, and what it leaves behind.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::server::{Cores, Server, read};
use super::{Bench, Finding, number};
use crate::workspace;

pub(super) fn run(bench: &Bench<'_>, minutes: u32) -> Result<Vec<Finding>> {
    println!("\nmalformed traffic for {minutes} min");
    let (duration, idle) = (format!("{minutes}m"), "10000");
    let report = abuse(
        bench,
        &["--duration", &duration, "--idle", idle, "--slow", "300"],
    )?;
    let memory = |when: &str| Ok(number(&report, &format!("/memory_kib/{when}"))? / 1024.0);
    let memory: Vec<f64> = ["before", "with_idle_connections", "most", "after"]
        .into_iter()
        .map(memory)
        .collect::<Result<_>>()?;
    let kept = memory[3] - memory[0];
    let (answered, failed) = (
        number(&report, "/honest_answered")?,
        number(&report, "/honest_failed")?,
    );
    let measured = format!(
        "{minutes} min, {:.0} idle connections, {}; honest requests beside it: {answered:.0} answered, {failed:.0} \
         failed, p99 {:.1} ms; memory {:.1} MiB before, {:.1} with the idle connections, {:.1} at most, {:.1} after",
        number(&report, "/idle_connections")?,
        kinds(&report),
        number(&report, "/honest_p99")?,
        memory[0],
        memory[1],
        memory[2],
        memory[3],
    );
    Ok(vec![Finding {
        target: "malformed traffic: fuzzed messages, garbage for TLS and HTTP/2, slow clients, idle connections",
        asked: format!("it answers, no panic, keeps < {MOST_KEPT_MIB:.0} MiB"),
        measured,
        met: failed == 0.0 && answered > 0.0 && kept < MOST_KEPT_MIB,
    }])
}

/// The same for a moment: every honest request is answered.
pub(super) fn smoke(bench: &Bench<'_>) -> Result<()> {
    let report = abuse(bench, &["--duration", "3s", "--idle", "50", "--slow", "10"])?;
    let (answered, failed) = (
        number(&report, "/honest_answered")?,
        number(&report, "/honest_failed")?,
    );
    ensure!(
        answered > 0.0 && failed == 0.0,
        "honest requests failed: {report}"
    );
    Ok(())
}

fn abuse(bench: &Bench<'_>, flags: &[&str]) -> Result<Value> {
    let mut server = Server::start(bench, "malformed", Cores::All, &[])?;
    let (mut command, summary) = server.driver(bench, Cores::All, "abuse");
    server.with_own_keys(&mut command);
    command
        .args(["--workloads", "50", "--certified", "0.5"])
        .args(flags);
    workspace::run(&mut command)?;
    server.check()?;
    read(&summary)
}

/// Buffers and threads that an idle server has once it was busy.
const MOST_KEPT_MIB: f64 = 32.0;

fn kinds(report: &Value) -> String {
    let done = report["done"].as_object().into_iter().flatten();
    let kinds: Vec<_> = done
        .map(|(what, count)| format!("{count} × {what}"))
        .collect();
    kinds.join(", ")
}
