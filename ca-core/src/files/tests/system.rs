//! When the system does not tell what happens.

use std::collections::BTreeSet;
use std::sync::Mutex;

use notify::{Config, EventHandler, RecursiveMode, Watcher, WatcherKind};

use super::super::watch::{BoxWatcher, Connect, EventSink};
use super::*;

fn follow_by(connect: Connect, path: &Path, recheck: Duration) -> FollowedFiles<String> {
    let own = path.to_path_buf();
    let (followed, _thread) = FollowedFiles::launch(
        None,
        FileSet::new().required(path),
        options().recheck(recheck),
        boxed(move |files, _| text(files, &own)),
        connect,
    )
    .unwrap();
    followed
}

fn a_file(content: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, content).unwrap();
    (directory, path)
}

/// A watcher of a system whose limits are reached.
#[derive(Debug)]
struct Exhausted;

impl Watcher for Exhausted {
    fn new<F: EventHandler>(_: F, _: Config) -> notify::Result<Self> {
        Ok(Self)
    }

    fn watch(&mut self, _: &Path, _: RecursiveMode) -> notify::Result<()> {
        Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch))
    }

    fn unwatch(&mut self, _: &Path) -> notify::Result<()> {
        Err(notify::Error::watch_not_found())
    }

    fn kind() -> WatcherKind {
        WatcherKind::NullWatcher
    }
}

/// A watcher whose thread is gone, as `notify` behaves when it got none.
#[derive(Debug)]
struct Threadless;

impl Watcher for Threadless {
    fn new<F: EventHandler>(_: F, _: Config) -> notify::Result<Self> {
        Ok(Self)
    }

    fn watch(&mut self, _: &Path, _: RecursiveMode) -> notify::Result<()> {
        panic!("on purpose")
    }

    fn unwatch(&mut self, _: &Path) -> notify::Result<()> {
        panic!("on purpose")
    }

    fn kind() -> WatcherKind {
        WatcherKind::NullWatcher
    }
}

impl Drop for Threadless {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

#[test]
fn without_events_changes_are_found_by_looking() {
    let limit = || notify::Error::new(notify::ErrorKind::MaxFilesWatch);
    let systems: [(Connect, &str); 3] = [
        (
            Box::new(move |_| Err(limit())),
            "no file events: the system's limit of file watches is reached",
        ),
        (
            Box::new(|_| Ok(Box::new(Exhausted) as BoxWatcher)),
            "/: the system's limit of file watches is reached",
        ),
        (
            Box::new(|_| Ok(Box::new(Threadless) as BoxWatcher)),
            "the thread that receives file events is gone",
        ),
    ];
    for (connect, expected) in systems {
        let (_directory, path) = a_file("0.");
        let followed = follow_by(connect, &path, Duration::from_millis(10));
        assert_eq!(followed.status().watch_error.as_deref(), Some(expected));
        let mut changes = followed.subscribe();
        for n in 1..=3 {
            fs::write(&path, format!("{n}.")).unwrap();
            changes.wait_for(&format!("{n}."));
        }
        fs::remove_file(&path).unwrap();
        followed.wait_until(|s| s.is_refused);
        fs::write(&path, "back.").unwrap();
        changes.wait_for("back.");
        assert_eq!(followed.status().watch_error.as_deref(), Some(expected));
    }
}

/// The system's watcher, and what it watches.
#[derive(Debug)]
struct Recording(notify::RecommendedWatcher, Arc<Mutex<BTreeSet<PathBuf>>>);

impl Watcher for Recording {
    fn new<F: EventHandler>(handler: F, config: Config) -> notify::Result<Self> {
        Ok(Self(Watcher::new(handler, config)?, Arc::default()))
    }

    fn watch(&mut self, path: &Path, mode: RecursiveMode) -> notify::Result<()> {
        assert!(path.is_dir() && mode == RecursiveMode::NonRecursive);
        assert!(
            self.1.lock().unwrap().insert(path.to_path_buf()),
            "watched twice"
        );
        self.0.watch(path, mode)
    }

    fn unwatch(&mut self, path: &Path) -> notify::Result<()> {
        assert!(self.1.lock().unwrap().remove(path));
        self.0.unwatch(path)
    }

    fn kind() -> WatcherKind {
        WatcherKind::Inotify
    }
}

#[test]
fn what_is_no_longer_on_the_way_is_no_longer_watched() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    for n in 0..=3 {
        fs::create_dir(base.join(n.to_string())).unwrap();
        fs::write(base.join(format!("{n}/f")), format!("{n}.")).unwrap();
    }
    symlink("0", base.join("data")).unwrap();
    let watched = Arc::new(Mutex::new(BTreeSet::new()));
    let record = Arc::clone(&watched);
    let connect = Box::new(move |sink| {
        let mut watcher = Recording::new(sink, Config::default())?;
        watcher.1 = Arc::clone(&record);
        Ok(Box::new(watcher) as BoxWatcher)
    });
    let followed = follow_by(connect, &base.join("data/f"), NEVER);
    let mut changes = followed.subscribe();
    for n in 1..=3 {
        symlink(n.to_string(), base.join("next")).unwrap();
        fs::rename(base.join("next"), base.join("data")).unwrap();
        changes.wait_for(&format!("{n}."));
        let mut expected: BTreeSet<_> = base.ancestors().map(Path::to_path_buf).collect();
        expected.insert(base.join(n.to_string()));
        // A check that is under way renews them.
        followed.wait_until(|_| *watched.lock().unwrap() == expected);
    }
}

#[test]
fn events_are_tried_again() {
    let (_directory, path) = a_file("0.");
    let tries = AtomicU64::new(0);
    let connect = Box::new(move |sink| {
        if tries.fetch_add(1, Ordering::Relaxed) < 3 {
            return Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch));
        }
        watch::system()(sink)
    });
    let followed = follow_by(connect, &path, Duration::from_millis(10));
    assert!(followed.status().watch_error.is_some());
    followed.wait_until(|s| s.watch_error.is_none());
}

#[test]
fn an_error_of_the_watcher_is_told_and_not_the_end() {
    let (_directory, path) = a_file("0.");
    let sinks: Arc<Mutex<Vec<EventSink>>> = Arc::default();
    let made = Arc::clone(&sinks);
    let connect = Box::new(move |sink: EventSink| {
        made.lock().unwrap().push(sink.clone());
        watch::system()(sink)
    });
    let followed = follow_by(connect, &path, NEVER);
    let mut changes = followed.subscribe();
    for n in 1..=3 {
        let mut sink = sinks.lock().unwrap().last().unwrap().clone();
        sink.handle_event(Err(notify::Error::generic("broken")));
        let status = followed.wait_until(|s| s.watch_error.is_some());
        assert_eq!(
            status.watch_error.as_deref(),
            Some("file events broke off: broken")
        );
        // Nobody reports this. In place of the periodic check:
        fs::write(&path, format!("{n}.")).unwrap();
        sink.handle_event(Ok(overflow()));
        changes.wait_for(&format!("{n}."));
        followed.wait_until(|s| s.watch_error.is_none());
        assert_eq!(sinks.lock().unwrap().len(), n + 1);
        // The new one reports.
        fs::write(&path, format!("{n} again.")).unwrap();
        changes.wait_for(&format!("{n} again."));
    }
}

#[test]
fn lost_events_make_us_look() {
    let (_directory, path) = a_file("0.");
    let sinks: Arc<Mutex<Vec<EventSink>>> = Arc::default();
    let made = Arc::clone(&sinks);
    // Nothing is reported but what this test reports.
    let connect = Box::new(move |sink: EventSink| {
        made.lock().unwrap().push(sink);
        Ok(Box::new(notify::NullWatcher) as BoxWatcher)
    });
    let followed = follow_by(connect, &path, NEVER);
    let mut changes = followed.subscribe();
    fs::write(&path, "1.").unwrap();
    let mut sink = sinks.lock().unwrap()[0].clone();
    sink.handle_event(Ok(overflow()));
    changes.wait_for("1.");
}

fn overflow() -> notify::Event {
    notify::Event::new(notify::EventKind::Other).set_flag(notify::event::Flag::Rescan)
}
