//! The fleet driver: see `fleet --help`.

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    benches::fleet::run(benches::fleet::FleetArgs::parse())
}
