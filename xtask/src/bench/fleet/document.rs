//! The parts of `docs/benchmarks.md` that these runs write.

use std::fmt::Write as _;

use anyhow::Result;

use super::{Finding, Measured};
use crate::bench::document::{self, Section};

/// How it was measured, on what, and what came of it.
pub(super) fn write(section: Section, method: &str, measured: &Measured) -> Result<()> {
    let mut text = format!("{method}\n| | |\n|---|---|\n");
    for (what, value) in measured
        .machine
        .iter()
        .filter(|(what, _)| *what != "valgrind")
    {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {what} | {value} |");
    }
    text.push_str("\n| target | asked | measured | |\n|---|---|---|---|\n");
    for finding in &measured.findings {
        let Finding {
            target,
            asked,
            measured,
            met,
        } = finding;
        text.push_str(&document::row(target, asked, measured, *met));
    }
    println!("\n{text}");
    document::write_section(section, &text)
}

pub(super) const LOAD: &str = "\
Written by `cargo xtask bench fleet`, which takes some minutes: `ca-server` as it is shipped (profile `dist`), with its log in a file, asked
over gRPC and TLS 1.3 by `fleet`, a driver that runs against any CA with Istio's protocol (`cargo run --release -p benches --bin
fleet -- load --help`). All keys are P-256, and the key exchange is X25519 where nothing else is said. Server and clients are on one machine and talk over
loopback, so there is no network in it. *One core* means: the server has the first core and the clients the second, by
`taskset`.

The **floor** is what a certificate cannot do without: one verification and one signature, by bare calls of the same
library, on the server's core, while the clients' core is as busy. 100 % would be a server that does nothing else. On a new connection
two more verifications, one more signature and a key exchange come on top. *By the server's processor time* is what would be
reached if nobody else used its core. The **bare server** (`fleet bare`) does the floor and nothing else behind TLS and HTTP/2
of the same libraries: it reads no request, knows nobody, writes no log. It has the same driver, on the same cores, in turns with ours.
Figures are the middle of three rounds.

Keys, CSRs and tokens of the clients are made before, and they look no closer at a reply than to see that it has certificates in it.
Nothing is resumed: a new connection is a new handshake with the certificates of both sides. At a given rate latencies
count from the moment a request is due, so a server that stalls does not stop the clock, and neither does a machine that does.
Shared ones do: here a loop of multiplications, without a system call, takes up to twelve times as long for some hundredths of a second, at
once on both cores, about every one and a half seconds. So a thread of the driver runs such a loop every millisecond. *While the
processor kept its pace* are the tenths of a second in which, and in the one before, no hundredth was slower than half its usual
speed: what is asked in absolute numbers is judged by them, and the figures of all the time stand beside. Not measured: networks, clients with
other key exchanges, what an agent does with a certificate.
";

pub(super) const MALFORMED: &str = "\
Written by `cargo xtask bench malformed --minutes 20`: the same driver sends what no client should (`fleet abuse --help`), on all
cores, beside a few honest requests, each on a new connection. It is no measurement of speed, and the machine need not be quiet.
";
