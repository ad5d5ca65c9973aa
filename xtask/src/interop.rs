//! `interop`: our programs with real partners, installed by package name when they are missing.

mod certificates;
mod clients;
mod clock;
mod envoy;
mod linters;
mod openssl;
mod page;

use std::path::PathBuf;

use anyhow::Result;

pub(crate) use self::envoy::{Sabotage, Scenario};
use crate::mesh::Binaries;
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
    /// A browser, which shows the admin page of the CA.
    Page,
}

/// All partners, or one; of Envoy's scenarios all, or one.
pub(crate) fn run(
    binaries: &Binaries,
    partner: Option<Partner>,
    only: Option<Scenario>,
    sabotage: Option<Sabotage>,
) -> Result<()> {
    if let Some(sabotage) = sabotage {
        return envoy::run_sabotaged(binaries, sabotage);
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
    if partner.is_none_or(|partner| partner == Partner::Envoy) {
        envoy::run(binaries, only)?;
    }
    Ok(())
}

/// gRPC that is not ours, able to read `.proto` files.
fn grpc_for_python() -> Result<Venv> {
    Venv::with("grpc", &["grpcio==1.85.1", "grpcio-tools==1.85.1"])
}

fn proto_folder() -> PathBuf {
    workspace::root().join("ca-proto").join("proto")
}
