//! Being told by the system that something may have changed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, EventHandler, RecommendedWatcher, RecursiveMode, Watcher};

use super::bell::Bell;
use super::resolve::Lookups;

/// Makes the system's watcher.
pub(super) type Connect = Box<dyn Fn(EventSink) -> notify::Result<BoxWatcher> + Send>;
pub(super) type BoxWatcher = Box<dyn Watcher + Send>;

/// inotify on Linux.
pub(super) fn system() -> Connect {
    Box::new(|sink| {
        let watcher = RecommendedWatcher::new(sink, notify::Config::default())?;
        Ok(Box::new(watcher))
    })
}

/// Watches directories, never files: a watch on a file stays with the old file when another takes its place.
pub(super) struct Watch {
    connect: Connect,
    sink: EventSink,
    watcher: Option<BoxWatcher>,
    watched: Vec<PathBuf>,
    error: Option<Arc<str>>,
}

impl Watch {
    pub(super) fn new(bell: Arc<Bell>, connect: Connect) -> Self {
        Self {
            connect,
            sink: EventSink {
                bell,
                shared: Arc::default(),
            },
            watcher: None,
            watched: Vec::new(),
            error: None,
        }
    }

    /// What is being followed.
    pub(super) fn lookups(&self) -> Lookups {
        self.sink.lock().lookups.clone()
    }

    /// Why some changes will not be reported.
    pub(super) fn error(&self) -> Option<Arc<str>> {
        self.error.clone()
    }

    /// From its return on, every change of `lookups` rings the bell; what it could not arrange is in
    /// [`error`](Self::error). **Read the files after it.**
    ///
    /// All watches are made anew, because one may be lost or sit on a directory that has been moved away, and finding
    /// that out would cost as much.
    pub(super) fn follow(&mut self, lookups: &Lookups) {
        let failure = {
            let mut shared = self.sink.lock();
            shared.lookups = lookups.clone();
            shared.failure.take()
        };
        self.error = None;
        if let Some(failure) = failure {
            // Made anew at the next check and not at once, lest one that fails always keeps us busy.
            return self.give_up(&format!("file events broke off: {failure}"));
        }
        if self.watcher.is_none() {
            match (self.connect)(self.sink.clone()) {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => return self.give_up(&format!("no file events: {}", reason(&error))),
            }
        }
        // `notify` panics when it had no thread for itself: a system without threads to spare must not end us.
        let renewed = catch_unwind(AssertUnwindSafe(|| self.renew(lookups)));
        if renewed.is_err() {
            self.give_up("the thread that receives file events is gone");
        }
    }

    fn renew(&mut self, lookups: &Lookups) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for directory in self.watched.drain(..) {
            // An error says that it is not watched any more, which is what is wanted.
            let _ = watcher.unwatch(&directory);
        }
        for directory in lookups.directories() {
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => self.watched.push(directory.to_path_buf()),
                Err(error) => {
                    self.error.get_or_insert_with(|| {
                        format!("{}: {}", directory.display(), reason(&error)).into()
                    });
                }
            }
        }
    }

    fn give_up(&mut self, reason: &str) {
        self.error = Some(reason.into());
        self.disconnect();
    }

    fn disconnect(&mut self) {
        self.watched.clear();
        let watcher = self.watcher.take();
        // Its end panics when its thread is gone.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(watcher)));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// Where the system's watcher, on its own thread, leaves its events.
#[derive(Clone, Debug)]
pub(super) struct EventSink {
    bell: Arc<Bell>,
    /// Held for a look-up or an assignment only.
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    lookups: Lookups,
    failure: Option<String>,
}

impl EventSink {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventHandler for EventSink {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        match event {
            Ok(event) => {
                if matters(&event, &self.lock().lookups) {
                    self.bell.ring();
                }
            }
            Err(error) => {
                self.lock().failure = Some(reason(&error));
                self.bell.ring();
            }
        }
    }
}

fn matters(event: &Event, lookups: &Lookups) -> bool {
    // That a file is opened is also told, and we open them ourselves.
    if let EventKind::Access(access) = event.kind
        && access != AccessKind::Close(AccessMode::Write)
    {
        return false;
    }
    // Without a path: events were lost.
    event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(|p| lookups.concern(p))
}

/// Without the paths: the caller names them. Without debug output, which is how `notify` shows errors of the system.
fn reason(error: &notify::Error) -> String {
    match &error.kind {
        notify::ErrorKind::Io(e) => e.to_string(),
        notify::ErrorKind::MaxFilesWatch => "the system's limit of file watches is reached".into(),
        notify::ErrorKind::PathNotFound => "not found".into(),
        _ => error.to_string(),
    }
}
