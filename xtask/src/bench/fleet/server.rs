//! A server for one scenario, and the driver against it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Bench;
use crate::http;
use crate::process::Process;
use crate::workspace;

/// Which cores a program has.
#[derive(Clone, Copy)]
pub(super) enum Cores {
    First,
    Second,
    All,
}

/// Ended when dropped.
pub(super) struct Server {
    process: Process,
    address: String,
    admin: SocketAddr,
    data: PathBuf,
}

impl Cores {
    pub(super) fn command(self, program: &Path) -> Command {
        let cores = match self {
            Self::First => "0",
            Self::Second => "1",
            Self::All => return Command::new(program),
        };
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).arg(program);
        command
    }
}

impl Server {
    pub(super) fn start(
        bench: &Bench<'_>,
        name: &str,
        cores: Cores,
        flags: &[&str],
    ) -> Result<Self> {
        let data = bench.lab.path(name);
        let mut command = cores.command(&bench.server);
        command
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(&data)
            .args(flags);
        let mut process = bench.lab.start(name, &mut command)?;
        let address = process.printed("serving", START_LIMIT)?;
        let admin = process.printed("admin", START_LIMIT)?;
        let admin = admin.parse().context("not an address")?;
        process.answers(admin, "/readyz", START_LIMIT)?;
        Ok(Self {
            process,
            address,
            admin,
            data,
        })
    }

    pub(super) fn data(&self, file: &str) -> PathBuf {
        self.data.join(file)
    }

    /// One of its metrics.
    pub(super) fn metric(&self, name: &str) -> Result<f64> {
        let page = http::get(self.admin, "/metrics")?;
        let value = page
            .body
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("no metric {name}"))
    }

    pub(super) fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// The driver with a place for its summary, and that place.
    pub(super) fn driver(&self, bench: &Bench<'_>, cores: Cores, verb: &str) -> (Command, PathBuf) {
        driver(bench, cores, verb, &self.address, &self.process)
    }

    /// Tokens by the server's own issuer, and its own root.
    pub(super) fn with_own_keys(&self, command: &mut Command) {
        command
            .arg("--ca-root")
            .arg(self.data("root-cert.pem"))
            .arg("--token-key")
            .arg(self.data("local-token-key.pem"));
    }

    /// A load to its end, and its summary.
    pub(super) fn load(&self, bench: &Bench<'_>, cores: Cores, flags: &[&str]) -> Result<Value> {
        let (mut command, summary) = self.driver(bench, cores, "load");
        self.with_own_keys(&mut command);
        load(bench, command, flags, &summary)
    }
}

/// A server that does nothing but what a certificate cannot do without, on the first core. Ended when dropped.
pub(super) struct Bare {
    process: Process,
    address: String,
    folder: PathBuf,
}

impl Bare {
    pub(super) fn start(bench: &Bench<'_>) -> Result<Self> {
        let folder = bench.lab.path("bare");
        let mut command = Cores::First.command(&bench.fleet);
        let mut process = bench.lab.start("bare", command.arg("bare").arg(&folder))?;
        let address = process.printed("serving", START_LIMIT)?;
        Ok(Self {
            process,
            address,
            folder,
        })
    }

    /// A load to its end, from the second core, and its summary. All clients show one certificate.
    pub(super) fn load(&self, bench: &Bench<'_>, flags: &[&str]) -> Result<Value> {
        let (mut command, summary) =
            driver(bench, Cores::Second, "load", &self.address, &self.process);
        for (flag, file) in [
            ("--ca-root", "root-cert.pem"),
            ("--client-cert", "client-cert.pem"),
            ("--client-key", "client-key.pem"),
        ] {
            command.arg(flag).arg(self.folder.join(file));
        }
        load(bench, command, flags, &summary)
    }
}

fn driver(
    bench: &Bench<'_>,
    cores: Cores,
    verb: &str,
    address: &str,
    server: &Process,
) -> (Command, PathBuf) {
    let summary = bench.lab.path("summary.json");
    let mut command = cores.command(&bench.fleet);
    command
        .args([verb, "--address", address, "--spread"])
        .args(["--server-pid", &server.id().to_string()])
        .arg("--json")
        .arg(&summary);
    (command, summary)
}

fn load(bench: &Bench<'_>, mut driver: Command, flags: &[&str], summary: &Path) -> Result<Value> {
    driver.args(["--duration", &format!("{}s", bench.seconds)]);
    workspace::run(driver.args(flags))?;
    read(summary)
}

pub(super) fn read(summary: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(summary)
        .with_context(|| format!("cannot read {}", summary.display()))?;
    serde_json::from_str(&text).context("the driver wrote no JSON")
}

pub(super) const START_LIMIT: Duration = Duration::from_secs(20);
