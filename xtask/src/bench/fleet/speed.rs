//! How fast, on one core: to the floor of the same cryptography, with new connections, idle, and at half of the peak. Beside
//! a server that does the least, where that tells what the machine can do.

use std::process::Child;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::server::{Bare, Cores, Server};
use super::{Bench, Finding, number};
use crate::workspace;

/// A figure is the middle of them.
const ROUNDS: usize = 3;

pub(super) fn run(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let servers = Servers {
        bench,
        ours: Server::start(bench, "speed", Cores::First, &[])?,
        bare: Bare::start(bench)?,
    };
    println!("\none core, connections that are kept");
    let warm = servers.to_the_floor(&["--workloads", "4", "--in-flight", "32"])?;
    println!("\none core, a thousand connections that are kept");
    let many = servers.to_the_floor(&["--workloads", "1000", "--in-flight", "32"])?;
    let peak = middle(&many, |round| number(&round.ours, "/issued_per_second"))?;
    let (share, measured) = shares(&warm)?;
    let mut findings = vec![
        Finding {
            target: "one core, 4 mTLS connections with 8 requests under way on each: share of the floor",
            asked: "≥ 60 %".to_owned(),
            measured,
            met: share >= 60.0,
        },
        Finding {
            target: "the same with 1,000 connections and 32 requests under way",
            asked: "no target".to_owned(),
            measured: shares(&many)?.1,
            met: true,
        },
    ];
    findings.extend(new_connections(&servers)?);
    findings.extend(latencies(&servers, peak)?);
    Ok(findings)
}

/// Both on the first core, one of them at rest; the driver has the second.
struct Servers<'a> {
    bench: &'a Bench<'a>,
    ours: Server,
    bare: Bare,
}

/// A floor, in microseconds, and the load after it.
struct ToFloor {
    floor: f64,
    ours: Value,
}

/// The same load on both.
struct Beside {
    ours: Value,
    bare: Value,
}

impl Servers<'_> {
    fn load(&self, flags: &[&str]) -> Result<Value> {
        let common = ["--certified", "1"];
        let flags = [&common, flags].concat();
        self.ours.load(self.bench, Cores::Second, &flags)
    }

    fn to_the_floor(&self, flags: &[&str]) -> Result<Vec<ToFloor>> {
        let round = |_| {
            Ok(ToFloor {
                floor: floor(self.bench, &[])?,
                ours: self.load(flags)?,
            })
        };
        (0..ROUNDS).map(round).collect()
    }

    fn beside(&self, flags: &[&str]) -> Result<Vec<Beside>> {
        let round = |_| {
            Ok(Beside {
                ours: self.load(flags)?,
                bare: self.bare.load(self.bench, flags)?,
            })
        };
        (0..ROUNDS).map(round).collect()
    }
}

/// By the clock, and for people with what the server's processor time tells.
fn shares(rounds: &[ToFloor]) -> Result<(f64, String)> {
    let per_second = |round: &ToFloor| number(&round.ours, "/issued_per_second");
    let by_clock = middle(rounds, |round| Ok(per_second(round)? * round.floor / 1e4))?;
    let by_cost = middle(rounds, |round| {
        Ok(round.floor * 100.0 / number(&round.ours, "/server/processor_each")?)
    })?;
    let text = format!(
        "{by_clock:.0} % ({:.0}/s; by the server's processor time {by_cost:.0} %)",
        middle(rounds, per_second)?
    );
    Ok((by_clock, text))
}

fn new_connections(servers: &Servers<'_>) -> Result<Vec<Finding>> {
    println!("\none core, a new connection for each request");
    let flags = ["--workloads", "64", "--in-flight", "8", "--fresh", "1"];
    let floors = (0..ROUNDS).map(|_| floor(servers.bench, &["--connection"]));
    let floors = floors.collect::<Result<Vec<_>>>()?;
    let rounds = servers.beside(&flags)?;
    println!("\nthe same with the post-quantum key exchange");
    let hybrid = servers.beside(&[&flags[..], &["--hybrid"]].concat())?;
    let figures = |rounds: &[Beside]| -> Result<(f64, f64, String)> {
        let ours = |what: &str| middle(rounds, |round| number(&round.ours, what));
        let bare = |what: &str| middle(rounds, |round| number(&round.bare, what));
        let (steady, each) = (
            ours("/steady/issued_per_second")?,
            ours("/server/processor_each")?,
        );
        let text = format!(
            "{:.0}/s, while the processor kept its pace {steady:.0}/s ({each:.0} µs of the processor each); the bare server \
             {:.0}/s, {:.0}/s ({:.0} µs)",
            ours("/issued_per_second")?,
            bare("/issued_per_second")?,
            bare("/steady/issued_per_second")?,
            bare("/server/processor_each")?
        );
        Ok((steady, each, text))
    };
    let (steady, each, measured) = figures(&rounds)?;
    let floor = middle(&floors, |floor| Ok(*floor))?;
    Ok(vec![
        Finding {
            target: "one core, a new mTLS connection for each request",
            asked: "≥ 2,200/s".to_owned(),
            measured: format!(
                "{measured}; its bare cryptography {floor:.0} µs, to which ours is {:.2} ×",
                each / floor
            ),
            met: steady >= 2200.0,
        },
        Finding {
            target: "the same with X25519MLKEM768",
            asked: "no target".to_owned(),
            measured: figures(&hybrid)?.2,
            met: true,
        },
    ])
}

fn latencies(servers: &Servers<'_>, peak: f64) -> Result<Vec<Finding>> {
    println!("\nidle");
    let idle = servers.beside(&["--workloads", "1", "--in-flight", "1"])?;
    println!("\nhalf of the peak");
    let rate = format!("{:.0}", peak / 2.0);
    let half = servers.beside(&["--workloads", "1000", "--rate", &rate])?;
    let ours = |rounds: &[Beside], what: &str| middle(rounds, |round| number(&round.ours, what));
    let bare = |rounds: &[Beside], what: &str| middle(rounds, |round| number(&round.bare, what));
    let figures = |rounds: &[Beside]| -> Result<String> {
        Ok(format!(
            "p50 {:.2} ms, p99 {:.2} ms; while the processor kept its pace ({:.0} % of the time) p99 {:.2} ms; the bare server: {:.2}, {:.2}, {:.2} ms",
            ours(rounds, "/latency/p50")?,
            ours(rounds, "/latency/p99")?,
            ours(rounds, "/steady/share")? * 100.0,
            ours(rounds, "/steady/p99")?,
            bare(rounds, "/latency/p50")?,
            bare(rounds, "/latency/p99")?,
            bare(rounds, "/steady/p99")?,
        ))
    };
    let met = ours(&idle, "/steady/p50")? <= 0.4 && ours(&idle, "/steady/p99")? <= 0.8;
    let failed = middle(&half, |round| number(&round.ours, "/failed"))?;
    Ok(vec![
        Finding {
            target: "idle, one request after the other: latency",
            asked: "p50 ≤ 0.4 ms, p99 ≤ 0.8 ms".to_owned(),
            measured: figures(&idle)?,
            met,
        },
        Finding {
            target: "half of the peak, 1,000 connections: latency",
            asked: "p99 < 10 ms".to_owned(),
            measured: format!("at {rate}/s: {}; {failed:.0} failed", figures(&half)?),
            met: failed == 0.0 && ours(&half, "/steady/p99")? < 10.0,
        },
    ])
}

/// Microseconds on the server's core while the clients' core is as busy as under load: where cores share what they have,
/// both are then slower.
fn floor(bench: &Bench<'_>, flags: &[&str]) -> Result<f64> {
    let measure = |cores: Cores| {
        let mut command = cores.command(&bench.fleet);
        command.args(["floor", "--duration", "1s"]).args(flags);
        command
    };
    let mut clients = KilledWhenDropped(
        measure(Cores::Second)
            .stdout(std::process::Stdio::null())
            .spawn()
            .context("cannot start the driver")?,
    );
    let text = workspace::output(&mut measure(Cores::First))?;
    let _ = clients.0.wait();
    text.trim().parse().context("the driver printed no number")
}

struct KilledWhenDropped(Child);

impl Drop for KilledWhenDropped {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn middle<T>(rounds: &[T], of: impl Fn(&T) -> Result<f64>) -> Result<f64> {
    let mut all = rounds.iter().map(of).collect::<Result<Vec<_>>>()?;
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2)
        .copied()
        .context("there were no rounds")
}
