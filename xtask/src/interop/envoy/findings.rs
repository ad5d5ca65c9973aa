//! What a run saw, and what is wrong with it.

use std::fmt::{self, Display};
use std::time::Duration;

use anyhow::Result;

use super::backend::Callers;
use super::load::Tally;
use crate::identity::Leaf;
use crate::mesh::Workload;

/// Of each of the two certificates.
pub(super) const WANTED_ROTATIONS: usize = 20;

pub(super) struct Findings {
    pub(super) load: Tally,
    /// Client certificates as the inbound Envoy saw them.
    pub(super) callers: Callers,
    /// Server certificates as handshakes of our own saw them.
    pub(super) probes: Probes,
    /// What an anonymous client was told, when it was let in.
    pub(super) anonymous_let_in: bool,
    /// The status when the server is not the one that is expected there.
    pub(super) stranger_status: u16,
    /// Secrets that one of the Envoys refused.
    pub(super) secrets_refused: u64,
    pub(super) took: Duration,
}

#[derive(Default)]
pub(super) struct Probes {
    pub(super) made: u64,
    /// Serial numbers in the order in which they first appeared.
    pub(super) serials: Vec<String>,
    pub(super) failures: u64,
    pub(super) first_failure: Option<String>,
}

impl Probes {
    /// What came of a handshake.
    pub(super) fn add(&mut self, handshake: Result<Leaf>) {
        self.made += 1;
        match handshake {
            Ok(leaf) if !self.serials.contains(&leaf.serial) => self.serials.push(leaf.serial),
            Ok(_) => {}
            Err(error) => {
                self.failures += 1;
                self.first_failure
                    .get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

pub(super) enum Fault {
    NoRequests,
    RequestsFailed(u64, Vec<String>),
    ProbesFailed(u64, String),
    ServerNotRotated(usize),
    ClientNotRotated(usize),
    ClientNames(String),
    SecretsRefused(u64),
    AnonymousLetIn,
    StrangerReached(u16),
}

impl Findings {
    /// More than enough has been seen.
    pub(super) fn enough(callers: &Callers, probes: &Probes) -> bool {
        rotations(callers.serials.len()).min(rotations(probes.serials.len())) >= WANTED_ROTATIONS
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.load.requests == 0 {
            faults.push(Fault::NoRequests);
        }
        if self.load.failures > 0 {
            let examples = self.load.first_failures.clone();
            faults.push(Fault::RequestsFailed(self.load.failures, examples));
        }
        if let Some(first) = &self.probes.first_failure {
            faults.push(Fault::ProbesFailed(self.probes.failures, first.clone()));
        }
        let shown = rotations(self.probes.serials.len());
        if shown < WANTED_ROTATIONS {
            faults.push(Fault::ServerNotRotated(shown));
        }
        let shown = rotations(self.callers.serials.len());
        if shown < WANTED_ROTATIONS {
            faults.push(Fault::ClientNotRotated(shown));
        }
        let names: Vec<_> = self.callers.names.iter().map(String::as_str).collect();
        if self.callers.unnamed > 0 || names != [Workload::Cart.spiffe_id()] {
            let unnamed = self.callers.unnamed;
            faults.push(Fault::ClientNames(format!(
                "{names:?}, {unnamed} requests without a name"
            )));
        }
        if self.secrets_refused > 0 {
            faults.push(Fault::SecretsRefused(self.secrets_refused));
        }
        if self.anonymous_let_in {
            faults.push(Fault::AnonymousLetIn);
        }
        if self.stranger_status != 503 {
            faults.push(Fault::StrangerReached(self.stranger_status));
        }
        faults
    }
}

impl Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        let load = &self.load;
        writeln!(
            f,
            "  requests            {} in {seconds:.1} s",
            load.requests
        )?;
        writeln!(f, "  failed requests     {}", load.failures)?;
        writeln!(
            f,
            "  longest gap         {} ms",
            load.longest_gap.as_millis()
        )?;
        let server = rotations(self.probes.serials.len());
        writeln!(
            f,
            "  server rotations    {server} on the wire, in {} probes",
            self.probes.made
        )?;
        let client = rotations(self.callers.serials.len());
        writeln!(f, "  client rotations    {client} on the wire")?;
        writeln!(f, "  refused secrets     {}", self.secrets_refused)?;
        let anonymous = if self.anonymous_let_in {
            "let in"
        } else {
            "refused"
        };
        writeln!(f, "  no certificate      {anonymous}")?;
        writeln!(
            f,
            "  another server      answered with {}",
            self.stranger_status
        )
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRequests => write!(f, "no request was made"),
            Self::RequestsFailed(count, examples) => {
                write!(f, "{count} requests failed: {}", examples.join("; "))
            }
            Self::ProbesFailed(count, first) => {
                write!(
                    f,
                    "{count} handshakes with the inbound Envoy failed: {first}"
                )
            }
            Self::ServerNotRotated(seen) => {
                write!(
                    f,
                    "{seen} of {WANTED_ROTATIONS} rotations of the server's certificate on the wire"
                )
            }
            Self::ClientNotRotated(seen) => {
                write!(
                    f,
                    "{seen} of {WANTED_ROTATIONS} rotations of the client's certificate on the wire"
                )
            }
            Self::ClientNames(names) => write!(f, "the server saw clients named {names}"),
            Self::SecretsRefused(count) => write!(f, "Envoy refused a secret {count} times"),
            Self::AnonymousLetIn => write!(f, "a client without a certificate was let in"),
            Self::StrangerReached(status) => {
                write!(
                    f,
                    "a server that is not the expected one: status {status} instead of 503"
                )
            }
        }
    }
}

/// The first certificate is none.
fn rotations(certificates: usize) -> usize {
    certificates.saturating_sub(1)
}
