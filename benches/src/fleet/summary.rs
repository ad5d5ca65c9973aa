//! What is told at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::histogram::Histogram;
use super::tally::Tally;

/// For people as text, for programs as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) seconds: f64,
    pub(crate) issued: u64,
    pub(crate) issued_per_second: f64,
    pub(crate) failed: u64,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) retries: u64,
    pub(crate) connections: u64,
    /// Of what was issued.
    pub(crate) latency: Latency,
    /// Of what failed: how long that took.
    pub(crate) failed_latency: Latency,
    /// Nothing when the processor never kept its pace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) steady: Option<Steady>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<ServerSummary>,
}

/// In milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) longest: f64,
}

/// Of the tenths of a second in which the processor kept its pace ([`Turns::steady`](super::pace::Turns::steady)).
#[derive(Debug, Serialize)]
pub(crate) struct Steady {
    /// Of the time.
    pub(crate) share: f64,
    pub(crate) issued_per_second: f64,
    /// In milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Of a server on this machine, over the same time.
#[derive(Debug, Serialize)]
pub(crate) struct ServerSummary {
    pub(crate) processor_seconds: f64,
    /// In microseconds, for each certificate.
    pub(crate) processor_each: f64,
    pub(crate) memory_before_kib: u64,
    pub(crate) memory_most_kib: u64,
    pub(crate) memory_after_kib: u64,
}

impl Summary {
    pub(crate) fn new(
        tally: &Tally,
        took: Duration,
        steady: &[bool],
        server: Option<ServerSummary>,
    ) -> Self {
        let issued = tally.issued();
        let by_name = tally.failures.iter();
        let steady = tally.tenths.part(steady);
        Self {
            seconds: took.as_secs_f64(),
            issued: issued.total(),
            issued_per_second: issued.total() as f64 / took.as_secs_f64(),
            failed: tally.failed.total(),
            failures: by_name
                .map(|(failure, count)| (failure.to_string(), *count))
                .collect(),
            retries: tally.retries,
            connections: tally.connections,
            latency: Latency::of(&issued),
            failed_latency: Latency::of(&tally.failed),
            steady: steady.map(|part| Steady {
                share: part.share,
                issued_per_second: part.issued_per_second,
                p50: milliseconds(part.p50),
                p99: milliseconds(part.p99),
            }),
            server,
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram) -> Self {
        let at = |share| histogram.quantile(share).map_or(0.0, milliseconds);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            longest: milliseconds(histogram.longest()),
        }
    }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "issued       {} in {:.1} s: {:.0}/s",
            self.issued, self.seconds, self.issued_per_second
        )?;
        writeln!(f, "latency      {}", self.latency)?;
        match &self.steady {
            Some(steady) => writeln!(f, "             {steady}")?,
            None => writeln!(f, "             the processor never kept its pace")?,
        }
        writeln!(f, "failed       {}", self.failed)?;
        for (failure, count) in &self.failures {
            writeln!(f, "             {count} × {failure}")?;
        }
        if self.failed > 0 {
            writeln!(f, "             after {}", self.failed_latency)?;
        }
        writeln!(f, "retries      {}", self.retries)?;
        write!(f, "connections  {} made", self.connections)?;
        if let Some(server) = &self.server {
            write!(
                f,
                "\nserver       {:.0} µs of a processor for each certificate; memory {} KiB before, {} at most, {} after",
                server.processor_each,
                server.memory_before_kib,
                server.memory_most_kib,
                server.memory_after_kib
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  longest {:.2} ms",
            self.p50, self.p90, self.p99, self.p999, self.longest
        )
    }
}

impl fmt::Display for Steady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "while the processor kept its pace ({:.0} % of the time): {:.0}/s  p50 {:.2}  p99 {:.2} ms",
            self.share * 100.0,
            self.issued_per_second,
            self.p50,
            self.p99
        )
    }
}
