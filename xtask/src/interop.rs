//! `interop`: our programs with real partners, installed by package name when they are missing.

mod agent_cost;
mod certificates;
mod clients;
mod clock;
mod envoy;
mod files;
mod kubernetes;
mod linters;
mod openssl;
mod page;
mod vault;
mod workload_api;

use std::fmt::Display;
use std::path::PathBuf;

use anyhow::Result;

pub(crate) use self::envoy::{Sabotage, Scenario};
use crate::control_plane::ControlPlaneArgs;
use crate::mesh::{Binaries, Profile};
use crate::venv::Venv;
use crate::workspace;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Partner {
    /// Two Envoys, configured as Istio configures its sidecars, with an agent each.
    Envoy,
    /// `OpenSSL`, Python gRPC and certificate linters.
    Clients,
    /// `OpenSSL` and linters, on one certificate of every kind that the library issues.
    Certificates,
    /// An application that takes its identity from the agent's socket by the SPIFFE Workload API.
    WorkloadApi,
    /// nginx, which serves from the files that an agent writes.
    Files,
    /// What an agent costs, as it is shipped. Only when it is named.
    AgentCost,
    /// A Kubernetes API server, with what our chart installs.
    Kubernetes,
    /// A browser, which shows the admin page of the CA.
    Page,
    /// HashiCorp Vault, which signs for an agent. Only when it is named: it takes minutes to build.
    Vault,
}

/// What may be typed after `interop`.
#[derive(clap::Args)]
pub(crate) struct InteropArgs {
    /// Which partner.
    partner: Option<Partner>,
    /// Use the binaries in this folder instead of building them.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    #[command(flatten)]
    control_plane: ControlPlaneArgs,
    /// Of what Envoy goes through, only this.
    #[arg(long, value_name = "SCENARIO")]
    only: Option<Scenario>,
    /// One Envoy run with an SDS server that is wrong in this way: it fails.
    #[arg(long, hide = true)]
    sabotage: Option<Sabotage>,
}

/// All partners, or one; of Envoy's scenarios all, or one.
pub(crate) fn run(args: &InteropArgs) -> Result<()> {
    let partner = args.partner;
    if partner == Some(Partner::Kubernetes) {
        return kubernetes::run(&args.control_plane);
    }
    let binaries = &Binaries::find(args.bin_dir.as_deref(), Profile::Dev)?;
    if let Some(sabotage) = args.sabotage {
        return envoy::run_sabotaged(binaries, sabotage);
    }
    if partner == Some(Partner::AgentCost) {
        return agent_cost::run(binaries);
    }
    if partner == Some(Partner::Vault) {
        return vault::run(binaries, &args.control_plane);
    }
    if partner.is_none_or(|partner| partner == Partner::Clients) {
        clients::run(binaries)?;
    }
    if partner.is_none_or(|partner| partner == Partner::Certificates) {
        certificates::run()?;
    }
    if partner.is_none_or(|partner| partner == Partner::Page) {
        page::run(binaries)?;
    }
    if partner.is_none_or(|partner| partner == Partner::WorkloadApi) {
        workload_api::run(binaries)?;
    }
    if partner.is_none_or(|partner| partner == Partner::Files) {
        files::run(binaries)?;
    }
    if partner.is_none() {
        kubernetes::run(&args.control_plane)?;
    }
    if partner.is_none_or(|partner| partner == Partner::Envoy) {
        envoy::run(binaries, args.only)?;
    }
    Ok(())
}

/// One line of what a run shows.
fn fact(label: &str, value: impl Display) {
    println!("  {label:<19} {value}");
}

/// gRPC that is not ours, able to read `.proto` files.
fn grpc_for_python() -> Result<Venv> {
    Venv::with("grpc", &["grpcio==1.85.1", "grpcio-tools==1.85.1"])
}

fn proto_folder() -> PathBuf {
    workspace::root().join("ca-proto").join("proto")
}
