//! What may be typed after `cargo xtask`.

use std::path::PathBuf;

use clap::Parser;

use crate::bench::BenchArgs;
use crate::interop::InteropArgs;

/// What this project does to itself.
#[derive(Parser)]
#[command(name = "cargo xtask", arg_required_else_help = true)]
pub(crate) enum Verb {
    /// How fast it is, beside the bare cryptography and beside Go: all of it, into docs/benchmarks.md.
    Bench(BenchArgs),
    /// Everything that a change must pass, except the tests.
    Ci,
    /// Generates the Rust code of the wire types.
    Codegen {
        /// Only compare with what is committed.
        #[arg(long)]
        check: bool,
    },
    /// A CA, two workloads, mutual TLS between them and a live rotation.
    Demo {
        /// End after everything has been shown.
        #[arg(long)]
        once: bool,
        /// Build without optimisation, which is quicker.
        #[arg(long)]
        dev: bool,
        /// Use the binaries in this folder instead of building them.
        #[arg(long)]
        bin_dir: Option<PathBuf>,
    },
    /// The fuzz targets, one after the other. Without a name: all of them.
    Fuzz {
        /// Which targets.
        targets: Vec<String>,
        /// How long each of them runs.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Our programs with real partners. Without a name: all of them.
    Interop(InteropArgs),
    /// Renders the plain manifests from the Helm chart.
    Manifests {
        /// Only compare with what is committed.
        #[arg(long)]
        check: bool,
    },
}
