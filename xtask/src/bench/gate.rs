//! Instructions and allocations of one issuance and of its floor, and the limits of both.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace;

/// Instructions of an issuance to those of the bare cryptography in it.
const MOST_INSTRUCTIONS: f64 = 1.03;
/// For each certificate, beside those that the library makes by itself.
const MOST_ALLOCATIONS: u64 = 10;

const LIBRARIES: [&str; 2] = ["ring", "aws-lc-rs"];
/// The start of the program is in both counts, and goes away in their difference.
const FEW: u64 = 50;
const MANY: u64 = 150;

/// Of one certificate from a P-256 CA for a P-256 CSR.
pub(super) struct Counts {
    library: &'static str,
    issue: Count,
    floor: Count,
}

struct Count {
    instructions: u64,
    allocations: u64,
    bytes: u64,
}

impl Counts {
    fn ratio(&self) -> f64 {
        self.issue.instructions as f64 / self.floor.instructions as f64
    }

    fn allocations(&self) -> u64 {
        self.issue
            .allocations
            .saturating_sub(self.floor.allocations)
    }
}

pub(super) fn count(gate: &Path) -> Result<Vec<Counts>> {
    valgrind_version()?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let folder = folder
        .path()
        .to_str()
        .context("the temporary folder has no name in UTF-8")?;
    workspace::run(workspace::command(gate).args(["make", folder]))?;
    LIBRARIES
        .into_iter()
        .map(|library| {
            let text =
                workspace::output(workspace::command(gate).args(["allocations", library, folder]))?;
            let mut numbers = text.split_whitespace().map(str::parse);
            let mut number = || {
                let number = numbers.next().context("the gate printed too little")?;
                number.context("the gate printed no number")
            };
            let mut counted = |what| {
                Ok::<_, anyhow::Error>(Count {
                    allocations: number()?,
                    bytes: number()?,
                    instructions: instructions(gate, what, library, folder)?,
                })
            };
            Ok(Counts {
                library,
                issue: counted("issue")?,
                floor: counted("floor")?,
            })
        })
        .collect()
}

/// As it says it of itself.
pub(super) fn valgrind_version() -> Result<String> {
    let version = workspace::output(workspace::command("valgrind").arg("--version"));
    let version = version.context("it counts the instructions: install the package `valgrind`")?;
    Ok(version.trim_end().to_owned())
}

fn instructions(gate: &Path, what: &str, library: &str, folder: &str) -> Result<u64> {
    let collected = |count: u64| {
        let mut valgrind = workspace::command("valgrind");
        valgrind
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(gate)
            .args([what, library, folder, &count.to_string()]);
        // It reports on the other stream.
        let report = valgrind.output().context("cannot start valgrind")?;
        let report = String::from_utf8_lossy(&report.stderr).into_owned();
        let number = report
            .lines()
            .find_map(|line| line.split_once("Collected : "))
            .and_then(|(_, number)| number.trim().parse::<u64>().ok());
        number.with_context(|| format!("valgrind counted nothing:\n{report}"))
    };
    let (few, many) = (collected(FEW)?, collected(MANY)?);
    ensure!(many > few, "more work took no more instructions");
    Ok((many - few) / (MANY - FEW))
}

pub(super) fn table(counts: &[Counts]) -> String {
    let mut text = String::from(
        "| library | instructions | floor | × floor | asked | allocations | of the library | ours | asked | bytes |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for counts in counts {
        let Counts {
            library,
            issue,
            floor,
        } = counts;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {library} | {} | {} | {:.4} | ≤ {MOST_INSTRUCTIONS} | {} | {} | {} | ≤ {MOST_ALLOCATIONS} | {} |",
            issue.instructions,
            floor.instructions,
            counts.ratio(),
            issue.allocations,
            floor.allocations,
            counts.allocations(),
            issue.bytes,
        );
    }
    text
}

pub(super) fn judge(counts: &[Counts]) -> Result<()> {
    let mut faults = Vec::new();
    for counts in counts {
        let (library, ratio, allocations) = (counts.library, counts.ratio(), counts.allocations());
        if ratio > MOST_INSTRUCTIONS {
            faults.push(format!(
                "{library}: {ratio:.4} × the instructions of the floor, at most {MOST_INSTRUCTIONS} are asked"
            ));
        }
        if allocations > MOST_ALLOCATIONS {
            faults.push(format!(
                "{library}: {allocations} allocations for a certificate, at most {MOST_ALLOCATIONS} are asked"
            ));
        }
    }
    if !faults.is_empty() {
        bail!("\n  {}", faults.join("\n  "));
    }
    println!("the gate holds");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(instructions: u64, allocations: u64) -> [Counts; 1] {
        let count = |instructions, allocations| Count {
            instructions,
            allocations,
            bytes: 0,
        };
        [Counts {
            library: "ring",
            issue: count(instructions, allocations),
            floor: count(1000, 2),
        }]
    }

    #[test]
    fn at_the_limits_it_holds() {
        judge(&counts(1030, 12)).unwrap();
    }

    #[test]
    fn above_either_limit_it_fails_and_says_which() {
        let error = judge(&counts(1031, 12)).unwrap_err().to_string();
        assert!(error.contains("1.0310 × the instructions"), "{error}");
        let error = judge(&counts(1030, 13)).unwrap_err().to_string();
        assert!(error.contains("11 allocations"), "{error}");
    }
}
