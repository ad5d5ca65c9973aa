//! `fuzz`: runs the targets in `fuzz/` one after the other, each from the inputs in `fuzz/corpus`.
//!
//! What a run finds on the way stays in `target`, so that the next run goes on from there and the checkout stays as
//! it is. `docs/fuzzing.md` tells what the targets assert, and how finds become part of the corpus.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{process, wait, workspace};

/// libFuzzer needs options of the compiler that are not stable.
const TOOLCHAIN: &str = "nightly";

/// The code under test has no `unsafe`, and the C in its libraries is not built for a sanitizer: without one, the
/// same time makes twice as many runs.
const BUILD: [&str; 2] = ["--sanitizer", "none"];

/// An input that takes longer is a find, whatever it does.
const SECONDS_PER_INPUT: u32 = 25;

/// An assertion with both of its sides; a backtrace would be longer.
const PANIC_LINES: usize = 6;

/// Runs these targets, or all if none is named, each for so many seconds.
pub(crate) fn run(seconds: u32, only: &[String]) -> Result<()> {
    let fuzzer = CargoFuzz::find()?;
    let listed = workspace::output(&mut fuzzer.command("list"))?;
    let all: Vec<&str> = listed.lines().collect();
    for wanted in only {
        ensure!(
            all.contains(&wanted.as_str()),
            "no fuzz target {wanted:?}: there are {}",
            all.join(", ")
        );
    }
    println!("building {} targets", all.len());
    workspace::run(fuzzer.command("build").args(BUILD))?;

    println!("{:<21} {:>12} {:>9}", "target", "executions", "coverage");
    let is_wanted = |target: &&&str| only.is_empty() || only.iter().any(|wanted| wanted == *target);
    let mut failed = Vec::new();
    for target in all.iter().filter(is_wanted) {
        let outcome = fuzzer.fuzz(target, seconds)?;
        println!(
            "{target:<21} {:>12} {:>9}",
            outcome.executions, outcome.coverage
        );
        if let Some(failure) = outcome.failure {
            eprintln!("FAILED {target}:\n{failure}");
            failed.push(*target);
        }
        if wait::stopped() {
            bail!("interrupted");
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// The tool, by the name or path under which it is found.
struct CargoFuzz(PathBuf);

impl CargoFuzz {
    /// The one that is installed, or else our own.
    fn find() -> Result<Self> {
        workspace::output(workspace::command("rustup").args(["run", TOOLCHAIN, "rustc", "-V"]))
            .with_context(|| {
                format!("fuzzing needs another compiler: `rustup toolchain install {TOOLCHAIN}`")
            })?;
        let mut version = workspace::command("cargo-fuzz");
        if workspace::output(version.args(["fuzz", "--version"])).is_ok() {
            return Ok(Self("cargo-fuzz".into()));
        }
        let folder = workspace::cache("tools")?;
        let program = folder.join("bin/cargo-fuzz");
        if !program.exists() {
            println!("installing cargo-fuzz (once)");
            let mut install = workspace::cargo(&["install", "cargo-fuzz", "--locked", "--root"]);
            workspace::run(install.arg(&folder))?;
        }
        Ok(Self(program))
    }

    /// As cargo would call it.
    fn command(&self, verb: &str) -> Command {
        let mut command = workspace::command(&self.0);
        command.env("RUSTUP_TOOLCHAIN", TOOLCHAIN);
        // The tool would add its own to each failure that it reports.
        command.env("RUST_BACKTRACE", "0");
        command.args(["fuzz", verb, "--fuzz-dir", "fuzz"]);
        command
    }

    fn fuzz(&self, target: &str, seconds: u32) -> Result<Outcome> {
        let folder = workspace::root().join("fuzz");
        let log = workspace::cache("fuzz/log")?.join(target);
        let file =
            File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = self.command("run");
        // libFuzzer writes to the first corpus, and only reads the second.
        command
            .args(BUILD)
            .arg(target)
            .arg(workspace::cache(&format!("fuzz/corpus/{target}"))?)
            .arg(folder.join("corpus").join(target))
            .args(["--", "-print_final_stats=1"])
            .arg(format!("-timeout={SECONDS_PER_INPUT}"))
            .arg(format!("-max_total_time={seconds}"));
        if let Some(name) = dictionary(target) {
            let path = folder.join("dictionaries").join(name);
            command.arg(format!("-dict={}", path.display()));
        }
        let also = file.try_clone().context("cannot share a log")?;
        let status = command.stdout(file).stderr(also).status();
        let status = status.with_context(|| format!("cannot start {}", self.0.display()))?;
        let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let text = String::from_utf8_lossy(&text);
        Ok(Outcome {
            executions: last_after(&text, "stat::number_of_executed_units:"),
            coverage: last_after(&text, "cov:"),
            failure: (!status.success()).then(|| panic_of(&text) + &process::tail(&log)),
        })
    }
}

/// The words that a target's inputs are made of.
fn dictionary(target: &str) -> Option<&'static str> {
    match target {
        "address_range" | "document_url" | "forwarded_certificate" => Some("header.dict"),
        "ca_folder" | "ca_state" => Some("folder.dict"),
        "certificate" | "csr" | "csr_attributes" | "screen" => Some("der.dict"),
        "crl" | "csr_pem" | "pem_bundle" | "private_key" => Some("pem.dict"),
        "identity_template" | "issuer_keys" | "jwt" | "jwt_claims" => Some("token.dict"),
        "duration" | "identity_pattern" | "spiffe_id" | "subject_name" => Some("names.dict"),
        "policy" => Some("policy.dict"),
        "istio_request" => Some("protobuf.dict"),
        _ => None,
    }
}

/// What one run came to.
struct Outcome {
    executions: String,
    /// Places in the code that some input has reached.
    coverage: String,
    /// What it said, and the end of the log, which names the input; unless all went well.
    failure: Option<String>,
}

/// What the target said when it gave up; nothing if it ran out of time or memory.
fn panic_of(text: &str) -> String {
    let lines = text
        .lines()
        .skip_while(|line| !line.contains("panicked at"));
    let said = lines.take_while(|line| !line.starts_with("note:"));
    said.take(PANIC_LINES)
        .map(|line| format!("    | {line}\n"))
        .collect()
}

/// The word behind the last `label`.
fn last_after(text: &str, label: &str) -> String {
    let rest = text.rsplit_once(label).map_or("", |(_, rest)| rest);
    rest.split_whitespace().next().unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_numbers_of_a_log_count() {
        let log =
            "#2 INITED cov: 7 ft: 8\n#9 DONE   cov: 12 ft: 13\nstat::number_of_executed_units: 9\n";
        assert_eq!(last_after(log, "cov:"), "12");
        assert_eq!(last_after(log, "stat::number_of_executed_units:"), "9");
        assert_eq!(last_after("", "cov:"), "-");
    }

    #[test]
    fn a_failure_starts_with_what_was_asserted() {
        let log =
            "#1 x\n\nthread '<unnamed>' panicked at a.rs:1:1:\nno path\nnote: run with\n==1==\n";
        let shown = "    | thread '<unnamed>' panicked at a.rs:1:1:\n    | no path\n";
        assert_eq!(panic_of(log), shown);
        assert_eq!(panic_of("ALARM: working on the last Unit"), "");
    }
}
