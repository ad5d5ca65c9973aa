//! How fast, on one core: to the floor of the same cryptography, with new connections, idle, and at half of the peak.

use std::process::Child;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::server::{Cores, Server};
use super::{Bench, Finding, number};
use crate::workspace;

/// Rounds of floor and load; a figure is the middle of them.
const ROUNDS: usize = 3;

pub(super) fn run(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let server = Server::start(bench, "speed", Cores::First, &[])?;
    let load = |flags: &[&str]| {
        let common = ["--certified", "1"];
        server.load(bench, Cores::Second, &[&common, flags].concat())
    };
    let rounds = |flags: &[&str]| -> Result<Vec<(f64, Value)>> {
        (0..ROUNDS)
            .map(|_| Ok((floor(bench)?, load(flags)?)))
            .collect()
    };
    println!("\none core, connections that are kept");
    let warm = rounds(&["--workloads", "4", "--in-flight", "32"])?;
    println!("\none core, a thousand connections that are kept");
    let many = rounds(&["--workloads", "1000", "--in-flight", "32"])?;
    println!("\none core, a new connection for each request");
    let fresh = rounds(&["--workloads", "64", "--in-flight", "8", "--fresh", "1"])?;
    println!("\nthe same with the post-quantum key exchange");
    let hybrid = rounds(&[
        "--workloads",
        "64",
        "--in-flight",
        "8",
        "--fresh",
        "1",
        "--hybrid",
    ])?;
    println!("\nidle");
    let idle = load(&["--workloads", "1", "--in-flight", "1"])?;
    println!("\nhalf of the peak");
    let peak = middle(&many, |_, load| number(load, "/issued_per_second"))?;
    let half = format!("{:.0}", peak / 2.0);
    let half = load(&["--workloads", "1000", "--rate", &half])?;

    let clock = |floor: f64, load: &Value| Ok(number(load, "/issued_per_second")? * floor / 1e4);
    let cost =
        |floor: f64, load: &Value| Ok(floor * 100.0 / number(load, "/server/processor_each")?);
    let rate = |_: f64, load: &Value| number(load, "/issued_per_second");
    let shares = |rounds: &[(f64, Value)]| -> Result<(f64, String)> {
        let (by_clock, by_cost) = (middle(rounds, clock)?, middle(rounds, cost)?);
        let text = format!(
            "{by_clock:.0} % ({:.0}/s; by the server's processor time {by_cost:.0} %)",
            middle(rounds, rate)?
        );
        Ok((by_clock, text))
    };
    let mut findings = Vec::new();
    let (share, measured) = shares(&warm)?;
    findings.push(Finding {
        target: "one core, 4 mTLS connections with 8 requests under way on each: share of the floor",
        asked: "≥ 60 %".to_owned(),
        measured,
        met: share >= 60.0,
    });
    let (_, measured) = shares(&many)?;
    findings.push(Finding {
        target: "the same with 1,000 connections and 32 requests under way",
        asked: "no target".to_owned(),
        measured,
        met: true,
    });
    let each = |_: f64, load: &Value| number(load, "/server/processor_each");
    let handshakes = |rounds: &[(f64, Value)]| -> Result<(f64, String)> {
        let per_second = middle(rounds, rate)?;
        let text = format!(
            "{per_second:.0}/s ({:.0} µs of the processor each, {:.1} × the floor)",
            middle(rounds, each)?,
            middle(rounds, |floor, load| Ok(each(floor, load)? / floor))?
        );
        Ok((per_second, text))
    };
    let (per_second, measured) = handshakes(&fresh)?;
    findings.push(Finding {
        target: "one core, a new mTLS connection for each request",
        asked: "≥ 2,200/s".to_owned(),
        measured,
        met: per_second >= 2200.0,
    });
    let (_, measured) = handshakes(&hybrid)?;
    findings.push(Finding {
        target: "the same with X25519MLKEM768",
        asked: "no target".to_owned(),
        measured,
        met: true,
    });
    let latency = |load: &Value| -> Result<(f64, f64)> {
        Ok((number(load, "/latency/p50")?, number(load, "/latency/p99")?))
    };
    let (p50, p99) = latency(&idle)?;
    findings.push(Finding {
        target: "idle, one request after the other: latency",
        asked: "p50 ≤ 0.4 ms, p99 ≤ 0.8 ms".to_owned(),
        measured: format!("p50 {p50:.2} ms, p99 {p99:.2} ms"),
        met: p50 <= 0.4 && p99 <= 0.8,
    });
    let (p50, p99) = latency(&half)?;
    findings.push(Finding {
        target: "half of the peak, 1,000 connections: latency",
        asked: "p99 < 10 ms".to_owned(),
        measured: format!("p50 {p50:.2} ms, p99 {p99:.2} ms"),
        met: p99 < 10.0,
    });
    Ok(findings)
}

/// Microseconds on the server's core while the clients' core is as busy as under load: where cores share what they have,
/// both are then slower.
fn floor(bench: &Bench<'_>) -> Result<f64> {
    let measure = |cores: Cores| {
        let mut command = cores.command(&bench.fleet);
        command.args(["floor", "--duration", "2s"]);
        command
    };
    let mut beside = Beside(
        measure(Cores::Second)
            .stdout(std::process::Stdio::null())
            .spawn()
            .context("cannot start the driver")?,
    );
    let text = workspace::output(&mut measure(Cores::First))?;
    let _ = beside.0.wait();
    text.trim().parse().context("the driver printed no number")
}

struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn middle(rounds: &[(f64, Value)], of: impl Fn(f64, &Value) -> Result<f64>) -> Result<f64> {
    let mut all = rounds
        .iter()
        .map(|(floor, load)| of(*floor, load))
        .collect::<Result<Vec<_>>>()?;
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2)
        .copied()
        .context("there were no rounds")
}
