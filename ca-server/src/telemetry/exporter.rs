//! The way out: a bounded queue, and one task that sends what is in it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::mpsc;

use super::collector::{Collector, Config};
use super::encoding::Encoding;
use super::trace::{Recorded, Telemetry};

/// What is to be told about requests, and the task that tells it.
pub(crate) fn start(Config(collector): Config) -> (Telemetry, Exporter) {
    let Some(collector) = collector else {
        return (Telemetry(None), Exporter(None));
    };
    let (sender, receiver) = mpsc::channel(MOST_WAITING);
    let counts = SpanCounts(Some(Arc::default()));
    let queue = Queue {
        sender,
        counts: counts.clone(),
    };
    let task = Task {
        queue: receiver,
        collector,
        encoding: Encoding::default(),
        counts,
        is_failing: false,
    };
    (Telemetry(Some(queue)), Exporter(Some(task)))
}

/// Where requests that are over wait to be told of.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<Recorded>,
    counts: SpanCounts,
}

impl Queue {
    /// Waits for nothing: when there is no place, what was recorded is dropped, whole.
    pub(super) fn push(&self, recorded: Recorded) {
        let spans = recorded.spans();
        if self.sender.try_send(recorded).is_err() {
            self.counts.dropped(spans);
        }
    }
}

/// What became of spans. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpanCounts(Option<Arc<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl SpanCounts {
    fn exported(&self, spans: u64) {
        if let Some(counts) = &self.0 {
            counts.exported.fetch_add(spans, Ordering::Relaxed);
        }
    }

    fn dropped(&self, spans: u64) {
        if let Some(counts) = &self.0 {
            counts.dropped.fetch_add(spans, Ordering::Relaxed);
        }
    }

    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(counts) = &self.0 else {
            return Ok(());
        };
        for (name, help, count) in [
            (
                "mesh_ca_spans_exported",
                "Spans that the collector has taken",
                &counts.exported,
            ),
            (
                "mesh_ca_spans_dropped",
                "Spans that the collector has not taken, or that found no place to wait for it",
                &counts.dropped,
            ),
        ] {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            // Under exactly its name: the library adds to that of a counter.
            ConstGauge::new(count.load(Ordering::Relaxed)).encode(encoder)?;
        }
        Ok(())
    }
}

/// The task, before it runs.
#[derive(Debug)]
pub(crate) struct Exporter(Option<Task>);

#[derive(Debug)]
struct Task {
    queue: mpsc::Receiver<Recorded>,
    collector: Collector,
    encoding: Encoding,
    counts: SpanCounts,
    is_failing: bool,
}

impl Exporter {
    pub(crate) fn counts(&self) -> SpanCounts {
        self.0
            .as_ref()
            .map_or_else(SpanCounts::default, |task| task.counts.clone())
    }

    /// Sends until the last one who could record something has gone and everything is told.
    pub(crate) async fn run(self) {
        let Some(mut task) = self.0 else { return };
        while let Some(batch) = task.batch().await {
            task.send(batch).await;
        }
    }
}

impl Task {
    /// What there is: at once when it is much, else after a while.
    async fn batch(&mut self) -> Option<Vec<Recorded>> {
        let mut batch = vec![self.queue.recv().await?];
        let filled = async {
            while batch.len() < MOST_AT_ONCE {
                match self.queue.recv().await {
                    Some(recorded) => batch.push(recorded),
                    None => break,
                }
            }
        };
        // Late is as good as full.
        let _ = tokio::time::timeout(LONGEST_WAIT, filled).await;
        Some(batch)
    }

    async fn send(&mut self, batch: Vec<Recorded>) {
        let spans = batch.iter().map(Recorded::spans).sum();
        match self.collector.send(&self.encoding.request(batch)).await {
            Ok(rejected) => {
                let rejected = rejected.min(spans);
                self.counts.exported(spans - rejected);
                self.counts.dropped(rejected);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                self.counts.dropped(spans);
                // Once, and not for each batch.
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!("spans are dropped: {error}");
                }
            }
        }
    }
}

/// Requests, of which each is some five spans of 150 bytes: about 1.5 MiB.
const MOST_WAITING: usize = 2048;
const MOST_AT_ONCE: usize = 256;
/// As OpenTelemetry's own libraries.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use time::OffsetDateTime;
    use tonic::Status;
    use tonic::metadata::MetadataMap;

    use super::super::Step;
    use super::*;
    use crate::metrics::Method;

    fn queue_of(places: usize) -> (Telemetry, mpsc::Receiver<Recorded>, Arc<Counts>) {
        let (sender, receiver) = mpsc::channel(places);
        let counts = Arc::<Counts>::default();
        let queue = Queue {
            sender,
            counts: SpanCounts(Some(Arc::clone(&counts))),
        };
        (Telemetry(Some(queue)), receiver, counts)
    }

    fn begin(telemetry: &Telemetry) -> super::super::Trace {
        let begun = (OffsetDateTime::UNIX_EPOCH, Instant::now());
        telemetry.begin(&Method::CREATE_CERTIFICATE, &MetadataMap::new(), begun)
    }

    #[test]
    fn what_finds_no_place_is_dropped_whole_and_counted() {
        let (telemetry, mut receiver, counts) = queue_of(1);
        for _ in 0..3 {
            let trace = begin(&telemetry);
            trace.step(Step::Authenticate).end();
            trace.end(&Ok(()));
        }
        assert_eq!(counts.dropped.load(Ordering::Relaxed), 4);
        assert_eq!(receiver.try_recv().unwrap().spans(), 2);
        assert!(receiver.try_recv().is_err());
        drop(receiver);
        begin(&telemetry).end::<()>(&Err(Status::internal("")));
        assert_eq!(counts.dropped.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn who_goes_leaves_the_step_it_was_in_and_is_told_as_gone() {
        let (telemetry, mut receiver, _) = queue_of(1);
        let trace = begin(&telemetry);
        let step = trace.step(Step::Authenticate).then(Step::Authorize);
        drop(step);
        drop(trace);
        let recorded = receiver.try_recv().unwrap();
        assert_eq!(recorded.code, tonic::Code::Cancelled);
        let steps: Vec<_> = recorded.steps.iter().map(|taken| taken.step).collect();
        assert_eq!(steps, [Step::Authenticate, Step::Authorize]);
    }
}
