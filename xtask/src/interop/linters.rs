//! Certificate linters: everything that they say is a fault, except what is waived here by name.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::venv::Venv;
use crate::workspace;

const PKILINT: &str = "pkilint==0.13.3";

struct Waiver {
    code: &'static str,
    message_start: &'static str,
    /// Why it is no fault of ours.
    because: &'static str,
}

impl Waiver {
    fn covers(&self, code: &str, message: &str) -> bool {
        code == self.code && message.starts_with(self.message_start)
    }
}

const WAIVED: [Waiver; 1] = [Waiver {
    code: "pkix.invalid_uri_syntax",
    message_start: "Invalid URI syntax: \"spiffe://",
    because: "pkilint knows a fixed list of URI schemes, and spiffe is not in it",
}];

pub(super) fn check(certificates: &[PathBuf]) -> Result<()> {
    pkilint(certificates)?;
    zlint(certificates)
}

fn pkilint(certificates: &[PathBuf]) -> Result<()> {
    let pkilint = Venv::with("pkilint", &[PKILINT])?.program("lint_pkix_cert");
    for certificate in certificates {
        let mut command = workspace::command(&pkilint);
        // What is merely to be known (INFO), such as how a key identifier was made, is no finding.
        command
            .args(["lint", "--severity", "NOTICE", "--format", "JSON"])
            .arg(certificate);
        let mut findings = pkilint_findings(&mut command)?;
        findings
            .retain(|(code, message)| !WAIVED.iter().any(|waiver| waiver.covers(code, message)));
        ensure!(
            findings.is_empty(),
            "pkilint on {}: {findings:#?}",
            certificate.display()
        );
    }
    println!(
        "  pkilint finds nothing in {} certificates",
        certificates.len()
    );
    for Waiver { code, because, .. } in &WAIVED {
        println!("    (except {code}, waived: {because})");
    }
    Ok(())
}

/// Code and message of each.
fn pkilint_findings(command: &mut Command) -> Result<Vec<(String, String)>> {
    // Its exit status is the number of findings, so that it says nothing of success.
    let output = command.output().context("cannot start pkilint")?;
    let page: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "pkilint gave no report: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    let results = page["results"]
        .as_array()
        .context("pkilint's report has no results")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(results
        .iter()
        .filter_map(|result| result["finding_descriptions"].as_array())
        .flatten()
        .map(|finding| (text(&finding["code"]), text(&finding["message"])))
        .collect())
}

/// A Debian package since Debian 13; elsewhere there is nothing to install by name.
fn zlint(certificates: &[PathBuf]) -> Result<()> {
    if Command::new("zlint").arg("-version").output().is_err() {
        println!("  zlint is not installed (a package of Debian 13 and later): not run");
        return Ok(());
    }
    for certificate in certificates {
        let report = workspace::output(workspace::command("zlint").arg(certificate))?;
        let report: Value = serde_json::from_str(&report).context("zlint printed no JSON")?;
        let findings: Vec<_> = report
            .as_object()
            .context("zlint's report is no object")?
            .iter()
            .filter(|(_, lint)| matches!(lint["result"].as_str(), Some("warn" | "error" | "fatal")))
            .map(|(name, _)| name)
            .collect();
        ensure!(
            findings.is_empty(),
            "zlint on {}: {findings:?}",
            certificate.display()
        );
    }
    println!(
        "  zlint finds nothing in {} certificates",
        certificates.len()
    );
    Ok(())
}
