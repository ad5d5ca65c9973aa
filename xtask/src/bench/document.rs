//! `docs/benchmarks.md`: what was measured, on what, how, and how to do it again.

use std::fs;

use anyhow::{Context as _, Result};

use super::gate::{self, Counts};
use super::peers::Peers;
use crate::workspace;

const PATH: &str = "docs/benchmarks.md";

/// Where and with what: one fact for each row of a table.
pub(super) fn machine() -> Result<Vec<(&'static str, String)>> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']))
        .to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let line = |program: &str, arguments: &[&str]| {
        workspace::output(workspace::command(program).args(arguments))
            .map(|text| text.trim_end().to_owned())
    };
    let changed = line(
        "git",
        &[
            "status",
            "--porcelain",
            "--",
            "ca-core",
            "ca-auth",
            "ca-server",
            "benches",
        ],
    )?;
    let commit = line("git", &["rev-parse", "--short", "HEAD"])?;
    let lock = fs::read_to_string(workspace::root().join("Cargo.lock"))
        .context("cannot read Cargo.lock")?;
    Ok(vec![
        ("date", line("date", &["-u", "+%Y-%m-%d"])?),
        ("processor", processor),
        ("cores", cores.to_string()),
        ("system", line("uname", &["-sr"])?),
        ("load before the run", load),
        (
            "commit",
            if changed.is_empty() {
                commit
            } else {
                format!("{commit}, with changes that are not committed")
            },
        ),
        ("Rust", line("rustc", &["--version"])?),
        ("ring", locked(&lock, "ring")),
        ("aws-lc-rs", locked(&lock, "aws-lc-rs")),
        ("valgrind", gate::valgrind_version()?),
    ])
}

fn locked(lock: &str, name: &str) -> String {
    let entry = format!("name = \"{name}\"\nversion = \"");
    lock.split_once(&entry)
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or("unknown")
        .to_owned()
}

pub(super) fn text(
    machine: &[(&str, String)],
    counts: &[Counts],
    peers: &Peers,
    times: &str,
) -> String {
    let mut facts: String = machine
        .iter()
        .map(|(what, value)| format!("| {what} | {value} |\n"))
        .collect();
    if let Some(go) = &peers.go {
        facts.push_str(&format!("| Go | {go} |\n"));
    }
    let missing: String = peers
        .missing
        .iter()
        .map(|what| format!("\nA peer is not in this run, as it could not be built: {what}.\n"))
        .collect();
    let (gate, times) = (gate::table(counts), times.trim_end());
    format!("{HEAD}\n{facts}\n{METHOD}\n{gate}\n{AFTER_GATE}\n{times}\n{missing}\n{TAIL}")
}

/// All but what other runs write, which stays as it is.
pub(super) fn write(text: &str) -> Result<()> {
    let before = read()?;
    let whole = Section::ALL.iter().fold(text.to_owned(), |whole, section| {
        with_section(&whole, *section, section.of(&before).unwrap_or_default())
    });
    write_whole(&whole)
}

/// One section, and nothing else.
pub(super) fn write_section(section: Section, text: &str) -> Result<()> {
    write_whole(&with_section(&read()?, section, text))
}

/// A line of a table of targets.
pub(super) fn row(target: &str, asked: &str, measured: &str, met: bool) -> String {
    let verdict = if met { "met" } else { "**missed**" };
    format!("| {target} | {asked} | {measured} | {verdict} |\n")
}

/// What has a run of its own, in the order of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Fleet,
    Malformed,
    Kubernetes,
}

impl Section {
    const ALL: [Self; 3] = [Self::Fleet, Self::Malformed, Self::Kubernetes];

    fn heading(self) -> &'static str {
        match self {
            Self::Fleet => "## Under load",
            Self::Malformed => "## Malformed traffic",
            Self::Kubernetes => "## In a Kubernetes cluster",
        }
    }

    /// What stands between its heading and the next one.
    fn of(self, document: &str) -> Option<&str> {
        let (_, rest) = document.split_once(&format!("\n{}\n", self.heading()))?;
        Some(rest.split("\n## ").next().unwrap_or(rest).trim())
    }
}

fn read() -> Result<String> {
    let path = workspace::root().join(PATH);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Without a text: without the section.
fn with_section(document: &str, section: Section, text: &str) -> String {
    let (before, after) = document.split_once(LAST).unwrap_or((document, ""));
    let sections = Section::ALL.iter();
    let first = sections.filter_map(|each| before.find(&format!("\n{}\n", each.heading())));
    let mut whole = before[..first.min().unwrap_or(before.len())]
        .trim_end()
        .to_owned();
    for each in Section::ALL {
        let old = each.of(document).unwrap_or_default();
        let new = if each == section { text.trim() } else { old };
        if !new.is_empty() {
            whole.push_str(&format!("\n\n{}\n\n{new}", each.heading()));
        }
    }
    format!("{whole}\n\n{LAST}{after}")
}

fn write_whole(text: &str) -> Result<()> {
    let path = workspace::root().join(PATH);
    let folder = path.parent().context("the document has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

const LAST: &str = "## Again";

const HEAD: &str = "\
# Benchmarks

Written by `cargo xtask bench`, which takes a few minutes. Run it on a quiet machine to have your own: times differ
between machines, **ratios within one run are what counts**.

| | |
|---|---|";

const METHOD: &str = "\
## What is measured

One certificate, on one thread, without the network:

- **mesh-ca**: a CSR as PEM comes in, is read, and its own signature is checked (`Csr::from_pem_with`); a certificate
  for one SPIFFE name and 24 hours is made, with a random serial number, by the clock (`LocalAuthority::issue`), and
  goes out as PEM (`Certificate::to_pem`). The CSR is as Istio's agent makes it.
- **floor**: what this cannot do without: one verification of the same CSR's signature and one signature of the same
  length, by bare calls of the same library (`ring` or `aws-lc-rs`). *× floor* is what all the rest costs.
- **peers**: the same work on the same keys and requests in Go. One makes the calls of Istio's CA with its template:
  `pem.Decode`, `x509.ParseCertificateRequest`, `CheckSignature`, `x509.CreateCertificate`, `pem.EncodeToMemory`. The
  other is Istio's CA itself (`IstioCA.Sign`), imported from Istio's module.

**Go verifies its own signature after it has signed**: `x509.CreateCertificate` does so each time, as a guard against
faults of the processor, and it is part of Go's time: one more verification with the CA's key. mesh-ca does this once
for each CA key, when its bundle is made. A certificate of mesh-ca has a subject key identifier, one SHA-256 more
than Istio's.

`ca-server` uses aws-lc-rs. ring is the default of the library `ca-core`; it is slow at P-384.

## Instructions and allocations

P-256 CA, P-256 CSR. They are the same on a busy machine, so that `cargo xtask bench gate` can fail above a limit.
`valgrind --tool=callgrind` counts the instructions of 150 issuances and of 50; their difference, for each issuance,
is compared with that of the floor. Valgrind shows programs fewer features than the processor has, so that the
cryptography weighs a little differently from the metal. An allocator that counts gives the allocations of an
issuance, the most of 64; what the library allocates by itself, in the floor, is not ours.
";

const AFTER_GATE: &str = "\
## Times

Everyone takes turns, in rounds: a turn is about 2 ms of work, after one issuance that is not counted, and each round
has a turn of everyone. A ratio is the median of the ratios within each round: what slows the machine for a while slows
both. There are rounds of us and our floors, and rounds of us and the peers, whose turns are 50 ms, so that a garbage
collection falls into each.

**Times are those of the processor**, in all threads of a process: what a certificate costs, and so how many of them a
core makes, also when others use the machine. *By the clock* is what a caller waits on a machine where nobody else
does anything; Go's garbage collector then runs beside its program on another core. A peer looks at its own clocks.
The targets are held against the first peer, who does less.
";

const TAIL: &str = "\
## Again

```console
$ cargo xtask bench         # all of it, and this file
$ cargo xtask bench gate    # instructions and allocations alone
$ cargo xtask bench fleet   # the section about load alone
$ cargo xtask bench malformed --minutes 20
$ cargo xtask bench kubernetes # the section about clusters alone; it brings an API server
$ cargo bench -p benches    # criterion, for whoever changes something
```

It needs valgrind, and Go for the peers. What could not be built is left out, and this file says so.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_leaves_the_other_as_it_is() {
        use Section::{Fleet, Kubernetes};
        let document = format!("head\n\n## More\n\n{LAST}\n\ntail\n");
        let cluster = with_section(&document, Kubernetes, "pods\n");
        assert_eq!(Kubernetes.of(&cluster), Some("pods"));
        let both = with_section(&cluster, Fleet, "figures\n");
        let (one, other) = (Fleet.heading(), Kubernetes.heading());
        assert_eq!(
            both,
            format!("head\n\n## More\n\n{one}\n\nfigures\n\n{other}\n\npods\n\n{LAST}\n\ntail\n")
        );
        assert_eq!(with_section(&both, Fleet, "figures"), both);
        assert_eq!(with_section(&both, Fleet, ""), cluster);
        assert_eq!(with_section(&cluster, Kubernetes, ""), document);
        assert_eq!(Fleet.of(&document), None);
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"ring\"\nversion = \"0.17.14\"\n";
        assert_eq!(locked(lock, "ring"), "0.17.14");
        assert_eq!(locked(lock, "rin"), "unknown");
    }
}
