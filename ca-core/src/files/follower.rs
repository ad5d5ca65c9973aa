//! The thread: waits, looks, judges, publishes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use event_listener::Event;

use super::bell::{Bell, Wake};
use super::options::FollowOptions;
use super::set::{AbsoluteSet, ContentHash, ReadError, Reading, Snapshot};
use super::status::{FollowError, Refusal, Status};
use super::watch::Watch;

/// What the thread and its readers share.
#[derive(Debug)]
pub(super) struct Cell<T> {
    pub(super) current: ArcSwap<T>,
    /// Counts publications; written after the value, so whoever sees a number finds that value or a later one.
    pub(super) generation: AtomicU64,
    pub(super) status: ArcSwap<Status>,
    /// After each check.
    pub(super) checked: Event,
}

pub(super) type Parse<T> = Box<dyn FnMut(&Snapshot, Option<&T>) -> Result<T, FollowError> + Send>;

/// The files, and the watch on all that leads to them.
pub(super) struct Lookout {
    files: AbsoluteSet,
    watch: Watch,
}

/// What was seen.
pub(super) struct Look {
    pub(super) snapshot: Result<Snapshot, ReadError>,
    /// Whether all that was on the way was watched before it was read, and held still. Otherwise: look again soon.
    pub(super) settled: bool,
}

/// Whatever is configured, no core is kept busy.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// Where the system does not say that something has changed, for want of descriptors most often, we look ourselves.
const UNWATCHED_RECHECK: Duration = Duration::from_secs(5);

/// The way to the files may change while the watches are set.
const ROUNDS: usize = 4;

impl Lookout {
    pub(super) fn new(files: AbsoluteSet, watch: Watch) -> Self {
        Self { files, watch }
    }

    /// Watches first and reads then, so that no change falls between. Where to watch is known only from reading, hence
    /// the rounds.
    pub(super) fn look(&mut self) -> Look {
        let mut lookups = self.watch.lookups();
        let mut round = 1;
        loop {
            self.watch.follow(&lookups);
            let Reading {
                lookups: found,
                snapshot,
            } = self.files.read();
            let settled = found == lookups;
            if settled || round == ROUNDS {
                let moving = matches!(snapshot, Err(ReadError::Changing));
                return Look {
                    snapshot,
                    settled: settled && !moving,
                };
            }
            lookups = found;
            round += 1;
        }
    }
}

pub(super) struct Follower<T> {
    lookout: Lookout,
    parse: Parse<T>,
    options: FollowOptions,
    bell: Arc<Bell>,
    cell: Arc<Cell<T>>,
    published: Option<ContentHash>,
    /// What is there now and was refused, and how: not to be counted again.
    refused: Option<(Option<ContentHash>, String)>,
    settled: bool,
}

/// Where a follower begins.
pub(super) struct Start<T> {
    pub(super) value: T,
    /// What the value was parsed from, if it comes from the files.
    pub(super) published: Option<ContentHash>,
    pub(super) settled: bool,
}

impl<T> Follower<T> {
    pub(super) fn new(
        start: Start<T>,
        lookout: Lookout,
        parse: Parse<T>,
        options: FollowOptions,
        bell: Arc<Bell>,
    ) -> Self {
        let now = Instant::now();
        let found = start.published.is_some();
        let status = Status {
            checks: found.into(),
            checked_at: now,
            published_at: found.then_some(now),
            refusals: 0,
            last_refusal: None,
            is_refused: false,
            watch_error: lookout.watch.error(),
        };
        let cell = Cell {
            current: ArcSwap::from_pointee(start.value),
            generation: AtomicU64::new(found.into()),
            status: ArcSwap::from_pointee(status),
            checked: Event::new(),
        };
        Self {
            lookout,
            parse,
            options,
            bell,
            cell: Arc::new(cell),
            published: start.published,
            refused: None,
            settled: start.settled,
        }
    }

    pub(super) fn cell(&self) -> Arc<Cell<T>> {
        Arc::clone(&self.cell)
    }

    /// Until the bell is stopped.
    pub(super) fn run(mut self) {
        loop {
            let pause = if !self.settled {
                self.options.debounce
            } else if self.lookout.watch.error().is_some() {
                self.options.recheck.min(UNWATCHED_RECHECK)
            } else {
                self.options.recheck
            };
            let wake = match self.bell.wait(pause.max(MIN_PAUSE)) {
                Wake::Rung => self
                    .bell
                    .settle(self.options.debounce, self.options.max_debounce),
                other => other,
            };
            if wake == Wake::Stopped {
                return;
            }
            self.check();
        }
    }

    /// Looks once and publishes what is new and good.
    pub(super) fn check(&mut self) {
        let look = self.lookout.look();
        self.settled = look.settled;
        match look.snapshot {
            Ok(files) if self.published == Some(*files.content_hash()) => self.refused = None,
            Ok(files) => {
                let current = self.cell.current.load_full();
                let parse = &mut self.parse;
                // A thread that is gone would look like files that never change.
                let parsed = catch_unwind(AssertUnwindSafe(|| parse(&files, Some(&current))))
                    .unwrap_or(Err(FollowError::Panicked));
                match parsed {
                    Ok(value) => self.publish(value, *files.content_hash()),
                    Err(error) => self.refuse(Some(*files.content_hash()), error),
                }
            }
            Err(error) => self.refuse(None, error.into()),
        }
        self.update_status(|status| {
            status.checks += 1;
            status.checked_at = Instant::now();
        });
        self.cell.checked.notify(usize::MAX);
    }

    fn publish(&mut self, value: T, hash: ContentHash) {
        self.published = Some(hash);
        self.refused = None;
        self.cell.current.store(Arc::new(value));
        self.cell.generation.fetch_add(1, Ordering::Release);
        self.update_status(|status| status.published_at = Some(Instant::now()));
    }

    fn refuse(&mut self, hash: Option<ContentHash>, error: FollowError) {
        let refused = Some((hash, error.to_string()));
        if self.refused == refused {
            return;
        }
        self.refused = refused;
        self.update_status(|status| {
            status.refusals += 1;
            status.last_refusal = Some(Refusal {
                error: Arc::new(error),
                at: Instant::now(),
            });
        });
    }

    fn update_status(&self, update: impl FnOnce(&mut Status)) {
        let mut status = Status::clone(&self.cell.status.load());
        status.is_refused = self.refused.is_some();
        status.watch_error = self.lookout.watch.error();
        update(&mut status);
        self.cell.status.store(Arc::new(status));
    }
}
