//! Whom pages, metrics and orders ask: a server before or after it can sign.

use std::fmt;

use time::OffsetDateTime;

use super::{Observed, Waiting};
use crate::metrics;
use crate::report::{Readiness, Report};

/// A server that answers. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Server {
    Complete(Box<Observed>),
    /// There is nothing to sign with yet.
    Waiting(Box<Waiting>),
}

impl Server {
    /// Whether a certificate asked for at `now` would be signed.
    pub(crate) fn readiness(&self, now: OffsetDateTime) -> Readiness {
        match self {
            Self::Complete(observed) => observed.readiness(now),
            Self::Waiting(waiting) => waiting.readiness(),
        }
    }

    /// Everything that is known.
    pub(crate) async fn report(&self, now: OffsetDateTime) -> Report {
        match self {
            Self::Complete(observed) => observed.report(now).await,
            Self::Waiting(waiting) => waiting.report(now),
        }
    }

    /// The Prometheus text format.
    pub(crate) fn metrics(&self) -> Result<String, fmt::Error> {
        match self {
            Self::Complete(observed) => observed.metrics.text(observed),
            Self::Waiting(_) => metrics::before_there_is_a_ca(),
        }
    }
}
