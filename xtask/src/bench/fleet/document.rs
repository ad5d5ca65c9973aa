//! The part of `docs/benchmarks.md` that this run writes.

use std::fmt::Write as _;

use anyhow::Result;

use super::Finding;
use crate::bench::document::{self, Section};

pub(super) fn text(machine: &[(&str, String)], findings: &[Finding]) -> String {
    let mut text = String::from(METHOD);
    for (what, value) in machine.iter().filter(|(what, _)| *what != "valgrind") {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {what} | {value} |");
    }
    text.push_str("\n| target | asked | measured | |\n|---|---|---|---|\n");
    for finding in findings {
        let Finding {
            target,
            asked,
            measured,
            met,
        } = finding;
        text.push_str(&document::row(target, asked, measured, *met));
    }
    text
}

pub(super) fn write(text: &str) -> Result<()> {
    document::write_section(Section::Fleet, text)
}

const METHOD: &str = "\
Written by `cargo xtask bench fleet`, which takes some minutes: `ca-server` as it is released, with its log in a file, asked over gRPC
and TLS 1.3 by `fleet`, a driver that runs against any CA with Istio's protocol (`cargo run --release -p benches --bin fleet
-- load --help`). All keys are P-256, and the key exchange is X25519 where nothing else is said. Server and clients are on one machine and talk over
loopback, so there is no network in it. *One core* means: the server has the first core and the clients the second, by
`taskset`.

The **floor** is what a certificate cannot do without: one verification and one signature, by bare calls of the same
library, on the server's core, while the clients' core is as busy. 100 % would be a server that does nothing else.
Figures with a floor are the middle of three rounds of floor and load. *By the server's processor time* is what would be
reached if nobody else used its core.

Keys, CSRs and tokens of the clients are made before, and they look no closer at a reply than to see that it has certificates in it.
Nothing is resumed: a new connection is a new handshake with the certificates of both sides. At a given rate latencies
count from the moment a request is due, so a server that stalls does not stop the clock; the driver's timer adds up to
1 ms to them. Not measured: networks, clients with other key exchanges, what an agent does with a certificate.

| | |
|---|---|
";
