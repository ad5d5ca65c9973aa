//! `interop agent-cost`: what an agent costs the machine that it runs on, as it is shipped.

mod client;
mod memory;

use std::fmt::{self, Display};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use self::client::Stream;
use self::memory::{Memory, Waits};
use super::envoy::Bystander;
use super::fact;
use crate::lab::Lab;
use crate::mesh::{Agent, Binaries, Ca, Workload};
use crate::{wait, workspace};

const LIFETIME: Duration = Duration::from_secs(24 * 3600);
const LIMIT: Duration = Duration::from_secs(20);
const STARTS: usize = 20;
const STREAMS: usize = 100;
/// How long it is watched while nothing happens.
const REST: Duration = Duration::from_secs(10);

const MUSL: &str = "x86_64-unknown-linux-musl";

const MIB: u64 = 1024 * 1024;

/// As it is shipped: linked with the system's C library, and where that target is installed also without
/// one. Of binaries that the user gave, those.
pub(super) fn run(binaries: &Binaries) -> Result<()> {
    let envoy = super::envoy::program()?;
    let mut missed = Vec::new();
    if binaries.are_given {
        measure("as given", binaries, &envoy, 6 * MIB, &mut missed)?;
    } else {
        let shipped = binaries.with_shipped_agent(None)?;
        measure("usual target", &shipped, &envoy, 6 * MIB, &mut missed)?;
        if is_installed(MUSL) {
            let shipped = binaries.with_shipped_agent(Some(MUSL))?;
            measure(MUSL, &shipped, &envoy, 5 * MIB, &mut missed)?;
        } else {
            println!("\nagent-cost: NOT RUN for {MUSL}, which is not installed");
        }
    }
    ensure!(
        missed.is_empty(),
        "agent-cost: above the limit: {}",
        missed.join(", ")
    );
    println!("agent-cost: passed");
    Ok(())
}

fn measure(
    title: &str,
    binaries: &Binaries,
    envoy: &Path,
    allowed: u64,
    missed: &mut Vec<&'static str>,
) -> Result<()> {
    println!("\nagent-cost: {title}");
    Lab::run("interop-agent-cost", |lab| {
        let ca = Ca::start(lab, binaries)?;
        size(binaries, missed)?;
        starts(lab, &ca, missed)?;
        at_rest(lab, &ca, envoy, allowed, missed)
    })
}

fn is_installed(target: &str) -> bool {
    let mut rustc = workspace::command("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]);
    workspace::output(&mut rustc).is_ok_and(|path| Path::new(path.trim_end()).is_dir())
}

fn size(binaries: &Binaries, missed: &mut Vec<&'static str>) -> Result<()> {
    let bytes = binaries.agent_size()?;
    fact("binary", Bytes(bytes));
    if bytes > 6 * MIB {
        missed.push("binary");
    }
    Ok(())
}

/// Each time from the moment before its process is made.
fn starts(lab: &Lab, ca: &Ca<'_>, missed: &mut Vec<&'static str>) -> Result<()> {
    let (mut open, mut answers) = (Vec::new(), Vec::new());
    let mut agent = Agent::start(lab, ca, Workload::Cart, LIFETIME)?;
    for _ in 0..STARTS {
        agent.process.kill()?;
        fs::remove_file(&agent.socket).context("cannot remove a dead socket")?;
        let started = Instant::now();
        agent.launch_again(lab)?;
        let mut stream = Stream::open_soon(&agent.socket, LIMIT)?;
        open.push(started.elapsed());
        stream.subscribe("default")?;
        stream.answer()?;
        let answered = started.elapsed();
        agent.announced()?;
        answers.push(answered.saturating_sub(ca_latency(&agent)?));
    }
    let least = open.iter().copied().min().unwrap_or_default();
    let (open, answer) = (median(open), median(answers));
    let nothing: Vec<_> = (0..STARTS).map(|_| run_nothing()).collect::<Result<_>>()?;
    fact(
        "a program, at least",
        format_args!("{} for one that does nothing", Millis(median(nothing))),
    );
    fact(
        "start to socket",
        format_args!(
            "{} (median of {STARTS}), at best {}",
            Millis(open),
            Millis(least)
        ),
    );
    fact(
        "start to answer",
        format_args!(
            "{} beside what the CA took (median of {STARTS})",
            Millis(answer)
        ),
    );
    if open > Duration::from_millis(5) {
        missed.push("start to socket");
    }
    if answer > Duration::from_millis(25) {
        missed.push("start to answer");
    }
    Ok(())
}

/// How long this machine takes for the start and the end of a process.
fn run_nothing() -> Result<Duration> {
    let started = Instant::now();
    workspace::run(&mut workspace::command("true"))?;
    Ok(started.elapsed())
}

fn at_rest(
    lab: &Lab,
    ca: &Ca<'_>,
    envoy: &Path,
    allowed: u64,
    missed: &mut Vec<&'static str>,
) -> Result<()> {
    let mut agent = Agent::start(lab, ca, Workload::Checkout, LIFETIME)?;
    agent.first_identity()?;
    let alone = Memory::of(&agent.process)?;
    let _envoy = Bystander::start(lab, envoy, &agent.socket, 1)?;
    streams(&agent, 2)?;
    let before = Waits::of(&agent.process)?;
    wait::pause(REST)?;
    let wakes = Waits::of(&agent.process)?.since(&before);
    let rest = Memory::of(&agent.process)?;
    fact("memory alone", &alone);
    fact("with one Envoy", &rest);
    fact(
        "wake-ups at rest",
        format_args!("{wakes} in {} s", REST.as_secs()),
    );

    let crowd = Bystander::start(lab, envoy, &agent.socket, STREAMS)?;
    streams(&agent, 2 + STREAMS + 1)?;
    let crowded = Memory::of(&agent.process)?;
    drop(crowd);
    streams(&agent, 2)?;
    let left = Memory::of(&agent.process)?;
    fact(
        "100 streams",
        format_args!("{crowded}, of a second Envoy on one connection"),
    );
    fact("after it left", &left);

    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = Stream::open_soon(&agent.socket, LIMIT)?;
        stream.subscribe("default")?;
        stream.answer()?;
        open.push(stream);
    }
    streams(&agent, 2 + STREAMS)?;
    let busy = Memory::of(&agent.process)?;
    drop(open);
    streams(&agent, 2)?;
    let after = Memory::of(&agent.process)?;
    fact(
        "100 connections",
        format_args!("{busy}, each with a stream and a first message as large as Envoy's"),
    );
    fact("after they closed", &after);

    for (what, is, limit) in [
        ("memory with one Envoy", rest.resident, allowed),
        ("memory with 100 streams", crowded.resident, 10 * MIB),
        (
            "memory after 100 streams",
            left.resident,
            rest.resident + MIB,
        ),
    ] {
        if is > limit {
            missed.push(what);
        }
    }
    Ok(())
}

/// Waits until so many streams are open, and all have what they asked for.
fn streams(agent: &Agent, count: usize) -> Result<()> {
    wait::until("streams", LIMIT, || {
        let page = agent.page("/debug/sds")?;
        let is = page.contains(&format!("\nstreams ({count})\n"));
        Ok(if is && !page.contains("  waits") {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(page)
        })
    })
}

/// How long it has waited for the CA so far.
fn ca_latency(agent: &Agent) -> Result<Duration> {
    let page = agent.page("/metrics")?;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("istio_agent_outgoing_latency{request_type=\"csr\"} "));
    let millis: f64 = line
        .context("no latency of the CA among the metrics")?
        .parse()
        .context("latency of the CA")?;
    Ok(Duration::from_secs_f64(millis / 1000.0))
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations
        .get(durations.len() / 2)
        .copied()
        .unwrap_or_default()
}

struct Millis(Duration);

impl Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ms", self.0.as_secs_f64() * 1000.0)
    }
}

struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let mib = self.0 as f64 / MIB as f64;
        write!(f, "{mib:.2} MiB")
    }
}
