//! A program in another language that does the same work on the same material, and takes turns with us.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ca_core::KeyKind;

use crate::kind::label;
use crate::material::Material;
use crate::stopwatch::Taken;

/// It reads `<CA key> <CSR key> <count>` and answers `<nanoseconds> <of the processor> <allocations> <bytes>`: it looks
/// at its own clocks, so that the pipe between us costs it nothing. Killed on drop.
pub struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    description: String,
}

/// What a peer says of its turn, all issuances together.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// On its own clocks.
    pub taken: Taken,
    /// How many.
    pub allocations: u64,
    /// In all of them.
    pub bytes: u64,
}

impl Peer {
    /// Starts `program`. The first line that it prints says what it is.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(program: &Path, material: &Material<'_>) -> Result<Self> {
        let mut child = Command::new(program)
            .arg(material.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let requests = child.stdin.take().context("the peer has no input")?;
        let answers = child.stdout.take().context("the peer has no output")?;
        let mut peer = Self {
            child,
            requests,
            answers: BufReader::new(answers),
            description: String::new(),
        };
        peer.description = peer.line()?;
        Ok(peer)
    }

    /// What it said of itself.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Lets it issue `count` certificates, after one that does not count.
    ///
    /// # Errors
    /// When it ends or says something else.
    pub fn issue(&mut self, ca: KeyKind, csr: KeyKind, count: u32) -> Result<Report> {
        writeln!(self.requests, "{} {} {count}", label(ca), label(csr))
            .context("the peer is gone")?;
        let line = self.line()?;
        let numbers: Vec<u64> = line
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("the peer said {line:?}"))?;
        let [clock, processor, allocations, bytes] = numbers[..] else {
            bail!("the peer said {line:?}");
        };
        Ok(Report {
            taken: Taken {
                clock: Duration::from_nanos(clock),
                processor: Duration::from_nanos(processor),
            },
            allocations,
            bytes,
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the peer has ended: {}", self.child.wait()?);
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
