//! Vault itself: started, opened, closed, ended.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::api::{Api, text};
use crate::go::{self, Program};
use crate::lab::Lab;
use crate::mesh;
use crate::process::Process;
use crate::wait;

const PROGRAM: Program = Program {
    name: "vault",
    package: ".",
    stamps: &[],
};

const START_LIMIT: Duration = Duration::from_secs(30);

/// Built from its published module, once.
pub(super) fn program() -> Result<PathBuf> {
    Ok(go::build("vault", &[PROGRAM])?.join(PROGRAM.name))
}

/// A running Vault that is ours: its storage is a folder, and we have its only key.
pub(super) struct Vault {
    /// As its operator.
    pub(super) api: Api,
    /// As it tells it.
    pub(super) version: String,
    key: String,
    command: Command,
    process: Process,
}

impl Vault {
    /// A new one, initialized and unsealed.
    pub(super) fn start(lab: &Lab, program: &Path) -> Result<Self> {
        let address = mesh::free_address()?;
        let data = lab.path("vault");
        std::fs::create_dir(&data).context("cannot make a folder for Vault")?;
        let mut command = Command::new(program);
        command
            .args(["-listen", &address.to_string()])
            .arg("-data")
            .arg(&data);
        let mut process = lab.start("vault", &mut command)?;
        let version = process.printed("version", START_LIMIT)?;
        serves(&mut process, address)?;
        let mut api = Api {
            address,
            roots: data.join("ca.pem"),
            caller: None,
        };
        let one_key = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let made = api.post("/v1/sys/init", &one_key)?;
        let key = text(&made, "/keys_base64/0")?.to_owned();
        api.caller = Some(("X-Vault-Token", text(&made, "/root_token")?.to_owned()));
        let vault = Self {
            api,
            version,
            key,
            command,
            process,
        };
        vault.unseal()?;
        Ok(vault)
    }

    pub(super) fn seal(&self) -> Result<()> {
        self.api.post("/v1/sys/seal", &json!({})).map(drop)
    }

    /// Returns when it works again.
    pub(super) fn unseal(&self) -> Result<()> {
        let answer = self
            .api
            .post("/v1/sys/unseal", &json!({ "key": self.key }))?;
        ensure!(answer["sealed"] == false, "it stays sealed: {answer}");
        wait::until("Vault that works", START_LIMIT, || {
            let (status, answer) = self.api.ask("GET", "/v1/sys/health", &Value::Null)?;
            Ok(match status {
                200 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(format!("{status} {answer}")),
            })
        })
    }

    /// Ends it as a crash would.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again: sealed, with what it had, and with another certificate for its listener.
    pub(super) fn start_again(&mut self, lab: &Lab) -> Result<()> {
        self.process = lab.start("vault-again", &mut self.command)?;
        serves(&mut self.process, self.api.address)
    }
}

fn serves(process: &mut Process, address: SocketAddr) -> Result<()> {
    let told = process.printed("serving", START_LIMIT)?;
    ensure!(
        told == address.to_string(),
        "it serves {told}, not {address}"
    );
    Ok(())
}
