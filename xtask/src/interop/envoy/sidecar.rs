//! A running Envoy and what its admin page tells.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::http;
use crate::lab::Lab;
use crate::process::Process;
use crate::wait;

const START_LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Sidecar {
    /// Where its only listener listens.
    pub(super) listener: SocketAddr,
    admin: SocketAddr,
    process: Process,
}

impl Sidecar {
    /// Returns when the listener is open, which needs both secrets.
    pub(super) fn start(lab: &Lab, envoy: &Path, name: &str, bootstrap: &Value) -> Result<Self> {
        let mut sidecar = Self::launch(lab, envoy, name, bootstrap)?;
        sidecar.opened(START_LIMIT)?;
        Ok(sidecar)
    }

    /// Returns when it runs. Its listener has an address then, and may not be open.
    pub(super) fn launch(lab: &Lab, envoy: &Path, name: &str, bootstrap: &Value) -> Result<Self> {
        let config = lab.write(&format!("{name}.json"), bootstrap.to_string())?;
        let admin_file = lab.path(format!("{name}.admin"));
        let mut command = Command::new(envoy);
        command
            .arg("--config-path")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "warning",
            ]);
        let mut process = lab.start(name, &mut command)?;
        let admin = wait::until(&format!("admin address of {name}"), START_LIMIT, || {
            process.check()?;
            let text = std::fs::read_to_string(&admin_file).unwrap_or_default();
            Ok(match text.trim().parse::<SocketAddr>() {
                Ok(address) => ControlFlow::Break(address),
                Err(_) => ControlFlow::Continue("not written yet".to_owned()),
            })
        })?;
        let listener = wait::until(&format!("listener of {name}"), START_LIMIT, || {
            process.check()?;
            let listed =
                http::get(admin, "/listeners?format=json").and_then(|page| address(&page.body));
            Ok(match listed {
                Ok(address) => ControlFlow::Break(address),
                Err(error) => ControlFlow::Continue(format!("{error:#}")),
            })
        })?;
        Ok(Self {
            listener,
            admin,
            process,
        })
    }

    /// Returns when the listener is open.
    pub(super) fn opened(&mut self, limit: Duration) -> Result<()> {
        // A listener has an address, and is listed, some time before it listens.
        self.process.answers(self.admin, "/ready", limit)
    }

    /// What it says of itself before its listener is open, and after.
    pub(super) fn readiness(&self) -> Result<String> {
        Ok(http::get(self.admin, "/ready")?.body.trim_end().to_owned())
    }

    pub(super) fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// The sum of all counters whose name contains this text.
    pub(super) fn counter(&self, name: &str) -> Result<u64> {
        let page = http::get(self.admin, "/stats?format=json&type=Counters")?;
        ensure!(
            page.status == 200,
            "Envoy's statistics: status {}",
            page.status
        );
        let page: Value = serde_json::from_str(&page.body).context("Envoy's statistics")?;
        let counters = page["stats"]
            .as_array()
            .context("Envoy's statistics have no list")?;
        Ok(counters
            .iter()
            .filter(|counter| counter["name"].as_str().is_some_and(|n| n.contains(name)))
            .filter_map(|counter| counter["value"].as_u64())
            .sum())
    }
}

fn address(listeners: &str) -> Result<SocketAddr> {
    let page: Value = serde_json::from_str(listeners).context("the list is no JSON")?;
    let socket = &page["listener_statuses"][0]["local_address"]["socket_address"];
    let host = socket["address"]
        .as_str()
        .context("its listener is not open")?;
    let port = socket["port_value"]
        .as_u64()
        .context("its listener is not open")?;
    let ip = host
        .parse()
        .with_context(|| format!("not an address: {host:?}"))?;
    Ok(SocketAddr::new(
        ip,
        u16::try_from(port).context("not a port")?,
    ))
}
