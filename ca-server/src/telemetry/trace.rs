//! One request while it is under way. Everything about its spans that costs something is left to the exporter.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ca_auth::{Caller, Identities};
use time::OffsetDateTime;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::Step;
use super::exporter::Queue;
use super::parent::{Parent, ParentSpan};
use crate::metrics::Method;

/// Whether there is somebody to tell.
#[derive(Debug)]
pub(crate) struct Telemetry(pub(super) Option<Queue>);

impl Telemetry {
    /// The trace of a request that began at this moment, by both clocks.
    pub(crate) fn begin(
        &self,
        method: &Method,
        metadata: &MetadataMap,
        (begun, since): (OffsetDateTime, Instant),
    ) -> Trace {
        let Some(queue) = &self.0 else {
            return Trace(None);
        };
        let parent = match Parent::read(metadata) {
            Parent::NotSampled => return Trace(None),
            Parent::None => None,
            Parent::Span(span) => Some(span),
        };
        Trace(Some(Box::new(Recording {
            queue: queue.clone(),
            since,
            open: Mutex::new(Recorded {
                parent,
                method: method.clone(),
                begun,
                took: Duration::ZERO,
                caller: None,
                steps: Vec::with_capacity(5),
                // Unless it is told otherwise, because the caller has gone.
                code: Code::Cancelled,
            }),
        })))
    }
}

/// A request under way. It ends when the value is told how, or goes because its caller has gone.
#[derive(Debug)]
pub(crate) struct Trace(Option<Box<Recording>>);

#[derive(Debug)]
struct Recording {
    queue: Queue,
    since: Instant,
    /// Held to add one thing. Steps come one after the other: nobody waits for it.
    open: Mutex<Recorded>,
}

/// What is exported of a request.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) parent: Option<ParentSpan>,
    pub(super) method: Method,
    pub(super) begun: OffsetDateTime,
    pub(super) took: Duration,
    pub(super) caller: Option<(Identities, &'static str)>,
    pub(super) steps: Vec<Taken>,
    pub(super) code: Code,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) step: Step,
    /// Since the request began.
    pub(super) after: Duration,
    pub(super) took: Duration,
}

impl Recorded {
    /// How many spans it is: one for each step, and its own.
    pub(super) fn spans(&self) -> u64 {
        self.steps.len() as u64 + 1
    }
}

impl Trace {
    /// A step begins. It ends with what is returned.
    pub(crate) fn step(&self, step: Step) -> Running<'_> {
        Running {
            recording: self.0.as_deref().map(|trace| (trace, Instant::now())),
            step,
        }
    }

    /// Somebody vouches for the caller.
    pub(crate) fn caller(&self, caller: &Caller) {
        if let Some(recording) = &self.0 {
            recording.open().caller = Some((caller.identities.clone(), caller.authenticator));
        }
    }

    pub(crate) fn end<T>(self, result: &Result<T, Status>) {
        if let Some(recording) = &self.0 {
            recording.open().code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(recording) = self.0.take() {
            let Recording { queue, since, open } = *recording;
            let mut recorded = open.into_inner().unwrap_or_else(PoisonError::into_inner);
            recorded.took = since.elapsed();
            queue.push(recorded);
        }
    }
}

impl Recording {
    fn open(&self) -> MutexGuard<'_, Recorded> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took(&self, step: Step, begun: Instant, took: Duration) {
        let after = begun.saturating_duration_since(self.since);
        self.open().steps.push(Taken { step, after, took });
    }
}

/// A step under way.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    recording: Option<(&'a Recording, Instant)>,
    step: Step,
}

impl Running<'_> {
    /// It is over.
    pub(crate) fn end(self) {}

    /// It is over, and the next one begins.
    pub(crate) fn then(self, step: Step) -> Self {
        let recording = self.recording.map(|(trace, _)| trace);
        drop(self);
        Self {
            recording: recording.map(|trace| (trace, Instant::now())),
            step,
        }
    }

    /// It was over after `took`, and the next one took `next_took` from then on.
    pub(crate) fn was_followed_by(mut self, took: Duration, next: Step, next_took: Duration) {
        if let Some((trace, begun)) = self.recording.take() {
            trace.took(self.step, begun, took);
            trace.took(next, begun + took, next_took);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some((trace, begun)) = self.recording.take() {
            trace.took(self.step, begun, begun.elapsed());
        }
    }
}
