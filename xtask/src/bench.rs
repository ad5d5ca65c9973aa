//! `bench`: how fast we are, beside our floor and beside Go. `bench gate` is the part that does not depend on time.

mod document;
mod fleet;
mod gate;
mod kubernetes;
mod peers;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use crate::control_plane::ControlPlaneArgs;
use crate::workspace;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// What to run alone.
    part: Option<Part>,
    /// How long the rounds of each kind of CSR last, or each load of the fleet.
    #[arg(long, default_value_t = 25)]
    seconds: u32,
    /// How long the fleet sends malformed traffic.
    #[arg(long, default_value_t = 1)]
    minutes: u32,
    #[command(flatten)]
    control_plane: ControlPlaneArgs,
}

/// What to run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Instructions and allocations, which are the same on a busy machine: fails above the limits.
    Gate,
    /// The server under load, into its section of docs/benchmarks.md.
    Fleet,
    /// Malformed traffic for minutes, into its section of docs/benchmarks.md.
    Malformed,
    /// Callers of a cluster, into its section of docs/benchmarks.md. Brings an API server.
    Kubernetes,
    /// A few seconds of the fleet, without optimisation: fails when a request does.
    Smoke,
}

/// Without a part: all of it, written into `docs/benchmarks.md`.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let BenchArgs {
        part,
        seconds,
        minutes,
        ref control_plane,
    } = *args;
    match part {
        Some(Part::Fleet) => return fleet::run(seconds),
        Some(Part::Malformed) => return fleet::malformed(minutes),
        Some(Part::Kubernetes) => return kubernetes::run(control_plane),
        Some(Part::Smoke) => return fleet::smoke(),
        Some(Part::Gate) | None => {}
    }
    println!("building");
    let programs = Programs::build()?;
    if part == Some(Part::Gate) {
        let counts = gate::count(&programs.gate)?;
        print!("{}", gate::table(&counts));
        return gate::judge(&counts);
    }
    let peers = peers::build()?;
    // Before our own load is in it.
    let machine = document::machine()?;
    println!("counting instructions and allocations");
    let counts = gate::count(&programs.gate)?;
    println!("taking turns, about {} s", 4 * seconds + 10);
    let mut side_by_side = workspace::command(&programs.side_by_side);
    side_by_side.arg(seconds.to_string()).args(&peers.programs);
    let times = workspace::output(&mut side_by_side)?;
    let text = document::text(&machine, &counts, &peers, &times);
    document::write(&text)?;
    println!("\n{text}");
    gate::judge(&counts)
}

struct Programs {
    gate: PathBuf,
    side_by_side: PathBuf,
}

impl Programs {
    fn build() -> Result<Self> {
        let arguments = ["build", "--release", "--package", "benches", "--bins"];
        workspace::run(&mut workspace::cargo(&arguments))?;
        let release = workspace::target_directory()?.join("release");
        Ok(Self {
            gate: release.join("gate"),
            side_by_side: release.join("side_by_side"),
        })
    }
}
