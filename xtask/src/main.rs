//! Checks, demo and interoperability runs of this workspace.

mod bench;
mod chart;
mod ci;
mod codegen;
mod control_plane;
mod demo;
mod fuzz;
mod go;
mod http;
mod identity;
mod interop;
mod lab;
mod manifests;
mod mesh;
mod process;
mod tls;
mod venv;
mod verb;
mod wait;
mod workspace;

use std::process::ExitCode;

use clap::Parser as _;

use crate::mesh::{Binaries, Profile};
use crate::verb::Verb;

fn main() -> ExitCode {
    match run(Verb::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Not returned from here: that would print it for a debugger, not for a person.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    wait::catch_signals()?;
    match verb {
        Verb::Bench(args) => bench::run(&args),
        Verb::Ci => ci::run(),
        Verb::Codegen { check } => codegen::run(check),
        Verb::Demo { once, dev, bin_dir } => {
            let profile = if dev { Profile::Dev } else { Profile::Release };
            demo::run(&Binaries::find(bin_dir.as_deref(), profile)?, once)
        }
        Verb::Fuzz { targets, seconds } => fuzz::run(seconds, &targets),
        Verb::Interop(args) => interop::run(&args),
        Verb::Manifests { check } => manifests::run(check),
    }
}
