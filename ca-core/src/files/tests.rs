use std::fs;
use std::future::Future;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use tempfile::TempDir;

use super::*;

mod resolve;
mod system;
mod volume;

const DEADLINE: Duration = Duration::from_secs(30);
/// Longer than any test: what is seen, was seen because of an event.
const NEVER: Duration = Duration::from_secs(3600);

fn options() -> FollowOptions {
    FollowOptions::new()
        .debounce(Duration::from_millis(20))
        .max_debounce(Duration::from_millis(200))
        .recheck(NEVER)
}

/// Complete texts end with a full stop.
fn text(files: &Snapshot, path: &Path) -> Result<String, String> {
    let bytes = files.require(path).map_err(|e| e.to_string())?;
    let text = String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string())?;
    if text.ends_with('.') {
        Ok(text)
    } else {
        Err(format!("incomplete: {text:?}"))
    }
}

fn follow(path: &Path) -> FollowedFiles<String> {
    let own = path.to_path_buf();
    FollowedFiles::start(FileSet::new().required(path), options(), move |files, _| {
        text(files, &own)
    })
    .unwrap()
}

/// Follows a text that is not there yet.
fn follow_later(path: &Path) -> FollowedFiles<String> {
    let own = path.to_path_buf();
    let files = FileSet::new().required(path);
    FollowedFiles::start_with("none".into(), files, options(), move |files, _| {
        text(files, &own)
    })
    .unwrap()
}

impl<T> FollowedFiles<T> {
    fn wait_until(&self, is_so: impl Fn(&Status) -> bool) -> Arc<Status> {
        let look = || Some(self.status()).filter(|s| is_so(s));
        wait_for(&self.0.cell, DEADLINE, look)
            .unwrap_or_else(|| panic!("still {:?}", self.status()))
    }

    fn wait_for_check_after(&self, checks: u64) {
        self.wait_until(|s| s.checks > checks);
    }
}

impl Subscription<String> {
    fn wait_for(&mut self, expected: &str) {
        loop {
            let Some(value) = self.wait(DEADLINE) else {
                panic!("{:?} was not published: {:?}", expected, self.followed);
            };
            if *value == expected {
                return;
            }
        }
    }
}

#[test]
fn a_file_that_is_overwritten_in_place_is_published() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "1.").unwrap();
    let followed = follow(&path);
    assert_eq!((*followed.current()).as_str(), "1.");
    assert_eq!(followed.generation(), 1);
    assert_eq!(followed.status().watch_error, None);

    let mut changes = followed.subscribe();
    for content in ["2.", "3.", "4."] {
        fs::write(&path, content).unwrap();
        changes.wait_for(content);
    }
    assert_eq!((*followed.current()).as_str(), "4.");
}

#[test]
fn a_file_that_another_is_renamed_over_is_published_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "0.").unwrap();
    let followed = follow(&path);
    let mut changes = followed.subscribe();
    for n in 1..=4 {
        let next = directory.path().join("next");
        fs::write(&next, format!("{n}.")).unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(*changes.wait(DEADLINE).unwrap(), format!("{n}."));
    }
    assert_eq!(followed.generation(), 5);
    assert_eq!(followed.status().refusals, 0);
}

#[test]
fn a_file_that_is_written_in_two_parts_is_published_when_it_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "old.").unwrap();
    let followed = follow(&path);
    let mut changes = followed.subscribe();
    let mut refusals = followed.subscribe();

    fs::write(&path, "").unwrap();
    let refusal = refusals.wait_refused(DEADLINE).unwrap();
    assert_eq!(refusal.error.to_string(), "incomplete: \"\"");
    fs::write(&path, "ne").unwrap();
    let refusal = refusals.wait_refused(DEADLINE).unwrap();
    assert_eq!(refusal.error.to_string(), "incomplete: \"ne\"");
    assert!(followed.status().is_refused);
    assert_eq!((*followed.current()).as_str(), "old.");
    assert_eq!(followed.generation(), 1);

    fs::write(&path, "new.").unwrap();
    changes.wait_for("new.");
    let status = followed.wait_until(|s| !s.is_refused);
    assert_eq!(status.refusals, 2);
    assert_eq!(
        status.last_refusal.as_ref().unwrap().error.to_string(),
        "incomplete: \"ne\""
    );
    assert_eq!(followed.generation(), 2);
}

#[test]
fn a_file_that_is_deleted_is_refused_and_its_return_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "1.").unwrap();
    let followed = follow(&path);
    let mut changes = followed.subscribe();
    let mut refusals = followed.subscribe();

    fs::remove_file(&path).unwrap();
    let refusal = refusals.wait_refused(DEADLINE).unwrap();
    assert!(matches!(
        &*refusal.error,
        FollowError::Read(ReadError::Missing { path: p }) if *p == path
    ));
    assert_eq!((*followed.current()).as_str(), "1.");

    // The same content is no publication, but the refusal is over.
    fs::write(&path, "1.").unwrap();
    followed.wait_until(|s| !s.is_refused);
    assert_eq!(followed.generation(), 1);

    fs::remove_file(&path).unwrap();
    refusals.wait_refused(DEADLINE).unwrap();
    fs::write(&path, "2.").unwrap();
    changes.wait_for("2.");
    assert_eq!(followed.generation(), 2);
}

#[test]
fn unchanged_content_is_not_published_whatever_happens_to_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "1.").unwrap();
    let followed = follow(&path);

    let before = followed.status().checks;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    followed.wait_for_check_after(before);
    assert_eq!(followed.generation(), 1);

    let before = followed.status().checks;
    let next = directory.path().join("next");
    fs::write(&next, "1.").unwrap();
    fs::rename(&next, &path).unwrap();
    followed.wait_for_check_after(before);
    assert_eq!(followed.generation(), 1);
    assert_eq!(followed.status().refusals, 0);
}

#[test]
fn neither_other_files_nor_our_own_reading_make_us_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "1.").unwrap();
    let followed = follow(&path);
    let mut changes = followed.subscribe();
    fs::write(&path, "2.").unwrap();
    changes.wait_for("2.");
    // What is left of the events of that writing.
    assert!((0..20).any(|_| !wait_for_check(&followed, Duration::from_millis(300))));

    fs::write(directory.path().join("other"), "x").unwrap();
    fs::read(&path).unwrap();
    assert!(!wait_for_check(&followed, Duration::from_millis(300)));
}

/// Many times the debounce: `false` says that nothing was on its way.
fn wait_for_check<T>(followed: &FollowedFiles<T>, timeout: Duration) -> bool {
    let before = followed.status().checks;
    wait_for(&followed.0.cell, timeout, || {
        (followed.status().checks > before).then_some(())
    })
    .is_some()
}

#[test]
fn a_thousand_quick_writes_end_in_the_last_content() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "0.").unwrap();
    let followed = follow(&path);
    let mut changes = followed.subscribe();
    for n in 1..=1000 {
        fs::write(&path, format!("{n}.")).unwrap();
    }
    changes.wait_for("1000.");
    assert!(!followed.wait_until(|s| !s.is_refused).is_refused);
    assert!(followed.generation() < 1000, "they are debounced");
}

#[test]
fn events_without_end_do_not_postpone_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "1.").unwrap();
    let own = path.clone();
    let patient = options().debounce(NEVER);
    let followed =
        FollowedFiles::start(FileSet::new().required(&path), patient, move |files, _| {
            text(files, &own)
        })
        .unwrap();
    let mut changes = followed.subscribe();
    let published = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !published.load(Ordering::Relaxed) {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            }
        });
        let next = directory.path().join("next");
        fs::write(&next, "2.").unwrap();
        fs::rename(&next, &path).unwrap();
        let value = changes.wait(DEADLINE);
        published.store(true, Ordering::Relaxed);
        assert_eq!((*value.unwrap()).as_str(), "2.");
    });
}

#[test]
fn a_directory_on_the_way_may_be_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/b/f"), "0.").unwrap();
    let followed = follow(&at("a/b/f"));
    let mut changes = followed.subscribe();
    for n in 1..=3 {
        fs::create_dir_all(at("next/b")).unwrap();
        fs::write(at("next/b/f"), format!("{n}.")).unwrap();
        fs::rename(at("a"), at(&format!("old-{n}"))).unwrap();
        fs::rename(at("next"), at("a")).unwrap();
        changes.wait_for(&format!("{n}."));
        // The new directory is watched, not the one that was moved away.
        fs::write(at("a/b/f"), format!("{n} again.")).unwrap();
        changes.wait_for(&format!("{n} again."));
    }
    fs::remove_dir_all(at("a")).unwrap();
    followed.wait_until(|s| s.is_refused);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/b/f"), "back.").unwrap();
    changes.wait_for("back.");
}

#[test]
fn a_directory_that_moves_away_and_back_is_still_watched() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("a")).unwrap();
    fs::write(at("a/f"), "1.").unwrap();
    let followed = follow(&at("a/f"));
    let mut changes = followed.subscribe();
    fs::rename(at("a"), at("away")).unwrap();
    followed.wait_until(|s| s.is_refused);
    fs::rename(at("away"), at("a")).unwrap();
    followed.wait_until(|s| !s.is_refused);
    fs::write(at("a/f"), "2.").unwrap();
    changes.wait_for("2.");
}

#[test]
fn files_may_come_after_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/c/f");
    assert!(matches!(
        FileSet::new().required(&path).read(),
        Err(ReadError::Missing { .. })
    ));
    let followed = follow_later(&path);
    let mut changes = followed.subscribe();
    assert_eq!((*followed.current()).as_str(), "none");
    assert_eq!(followed.generation(), 0);
    let status = followed.status();
    assert!(status.is_refused);
    assert_eq!((status.refusals, status.published_at), (1, None));

    // One after the other, each is noticed.
    let mut parent = directory.path().to_path_buf();
    for name in ["a", "b", "c"] {
        let before = followed.status().checks;
        parent.push(name);
        fs::create_dir(&parent).unwrap();
        followed.wait_for_check_after(before);
    }
    assert_eq!(followed.status().refusals, 1, "still the same refusal");
    fs::write(&path, "1.").unwrap();
    changes.wait_for("1.");
    assert_eq!(followed.generation(), 1);
}

#[test]
fn the_start_needs_files_that_parse() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let start = || {
        let own = path.clone();
        let files = FileSet::new().required(&path).max_file_size(10);
        FollowedFiles::start(files, options(), move |files, _| text(files, &own)).unwrap_err()
    };
    assert_eq!(start().to_string(), format!("{}: missing", path.display()));
    fs::write(&path, "half").unwrap();
    assert_eq!(start().to_string(), "incomplete: \"half\"");
    fs::write(&path, "eleven byte").unwrap();
    assert!(matches!(
        start(),
        FollowError::Read(ReadError::TooLarge { limit: 10, .. })
    ));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(start().to_string().ends_with("not a regular file"));
    let empty = FileSet::new().required("");
    assert!(matches!(empty.read(), Err(ReadError::Io { .. })));
}

#[test]
fn a_named_pipe_is_refused_and_does_not_hold_us_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "1.").unwrap();
    let followed = follow(&path);
    let mut refusals = followed.subscribe();
    let pipe = directory.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    fs::rename(&pipe, &path).unwrap();
    let refusal = refusals.wait_refused(DEADLINE).unwrap();
    assert!(refusal.error.to_string().ends_with("not a regular file"));
}

#[test]
fn an_optional_file_may_come_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, crl) = (directory.path().join("cert"), directory.path().join("crl"));
    fs::write(&cert, "cert").unwrap();
    let files = FileSet::new()
        .required(&cert)
        .optional(&crl)
        .optional(&cert);
    let own = crl.clone();
    let followed = FollowedFiles::start(files, options(), move |files, _| {
        Ok::<_, ReadError>(files.get(&own).map(<[u8]>::to_vec))
    })
    .unwrap();
    let mut changes = followed.subscribe();
    assert_eq!(*followed.current(), None);
    fs::write(&crl, "").unwrap();
    assert_eq!(*changes.wait(DEADLINE).unwrap(), Some(vec![]));
    fs::remove_file(&crl).unwrap();
    assert_eq!(*changes.wait(DEADLINE).unwrap(), None);
    fs::remove_file(&cert).unwrap();
    followed.wait_until(|s| s.is_refused);
}

#[test]
fn bytes_that_move_from_one_file_to_the_next_are_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a"), directory.path().join("b"));
    let set = FileSet::new().optional(&a).optional(&b);
    let mut hashes = Vec::new();
    for (in_a, in_b) in [
        (None, None),
        (Some("x\u{1}y"), Some("")),
        (Some("x"), Some("y\u{1}")),
        (Some(""), None),
    ] {
        for (path, content) in [(&a, in_a), (&b, in_b)] {
            match content {
                Some(content) => fs::write(path, content).unwrap(),
                None => drop(fs::remove_file(path)),
            }
        }
        let snapshot = set.read().unwrap();
        assert_eq!(snapshot.get(&a), in_a.map(str::as_bytes));
        assert_eq!(snapshot.content_hash(), set.read().unwrap().content_hash());
        hashes.push(*snapshot.content_hash());
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 4);
}

#[test]
fn what_is_read_existed_at_one_moment() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // In the order of reading. The large ones make it last, so that a write often falls into it.
    let (first, last) = (at("a"), at("z"));
    let mut set = FileSet::new().required(&first).required(&last);
    for name in ["m", "n", "o", "p"] {
        fs::write(at(name), vec![0; 100 * 1024]).unwrap();
        set = set.required(at(name));
    }
    let write = |n: u32| {
        // `last` is never ahead of `first`.
        for path in [&first, &last] {
            fs::write(at("next"), n.to_be_bytes()).unwrap();
            fs::rename(at("next"), path).unwrap();
        }
    };
    write(0);
    let mut reads = 0;
    thread::scope(|scope| {
        let (reading, begun) = mpsc::channel();
        scope.spawn(move || begun.iter().for_each(write));
        for n in 1..=150 {
            reading.send(n).unwrap();
            if let Ok(files) = set.read() {
                reads += 1;
                assert!(files.get(&first) >= files.get(&last));
            }
        }
    });
    assert!(reads > 0);
}

#[test]
fn a_snapshot_shows_no_bytes() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), "secret").unwrap();
    let files = FileSet::new().required(directory.path().join("f"));
    let shown = format!("{:?}", files.read().unwrap());
    assert!(shown.contains("Some(6)"), "{shown}");
    assert!(
        !shown.contains("secret") && !shown.contains("115"),
        "{shown}"
    );
}

#[test]
fn what_is_refused_is_judged_again_from_time_to_time_and_counted_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "now.").unwrap();
    let (is_time, own) = (Arc::new(AtomicBool::new(false)), path.clone());
    let clock = Arc::clone(&is_time);
    let often = options().recheck(Duration::from_millis(5));
    let followed =
        FollowedFiles::start(
            FileSet::new().required(&path),
            often,
            move |files, _| match text(files, &own)?.as_str() {
                "later." if !clock.load(Ordering::Relaxed) => Err("not yet valid".to_owned()),
                valid => Ok(valid.to_owned()),
            },
        )
        .unwrap();
    let mut changes = followed.subscribe();
    fs::write(&path, "").unwrap();
    followed.wait_until(|s| s.refusals == 1);
    fs::write(&path, "later.").unwrap();
    let checks = followed.wait_until(|s| s.refusals == 2).checks;
    followed.wait_for_check_after(checks + 10);
    assert_eq!(followed.status().refusals, 2);
    is_time.store(true, Ordering::Relaxed);
    changes.wait_for("later.");
}

#[test]
fn the_parser_sees_what_would_be_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "1").unwrap();
    let own = path.clone();
    let followed = FollowedFiles::start(
        FileSet::new().required(&path),
        options(),
        move |files, previous: Option<&u64>| {
            let text = String::from_utf8_lossy(files.require(&own)?).into_owned();
            let number = text.parse()?;
            match previous {
                Some(&previous) if number <= previous => {
                    Err(format!("{number} after {previous}").into())
                }
                _ => Ok::<_, Box<dyn Error + Send + Sync>>(number),
            }
        },
    )
    .unwrap();
    let (mut changes, mut refusals) = (followed.subscribe(), followed.subscribe());
    let put = |content: &str| {
        fs::write(directory.path().join("next"), content).unwrap();
        fs::rename(directory.path().join("next"), &path).unwrap();
    };
    put("3");
    assert_eq!(*changes.wait(DEADLINE).unwrap(), 3);
    put("2");
    let refusal = refusals.wait_refused(DEADLINE).unwrap();
    assert_eq!(refusal.error.to_string(), "2 after 3");
    put("4");
    assert_eq!(*changes.wait(DEADLINE).unwrap(), 4);
}

#[test]
fn a_parser_that_panics_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "1.").unwrap();
    let own = path.clone();
    let followed = FollowedFiles::start(
        FileSet::new().required(&path),
        options(),
        move |files, _| {
            let text = text(files, &own)?;
            assert_ne!(text, "bad.", "on purpose");
            Ok::<_, String>(text)
        },
    )
    .unwrap();
    let (mut changes, mut refusals) = (followed.subscribe(), followed.subscribe());
    let next = directory.path().join("next");
    fs::write(&next, "bad.").unwrap();
    fs::rename(&next, &path).unwrap();
    let refusal = refusals.wait_refused(DEADLINE).unwrap();
    assert!(matches!(*refusal.error, FollowError::Panicked));
    fs::write(&path, "good.").unwrap();
    changes.wait_for("good.");
}

#[test]
fn async_readers_are_woken_by_changes_and_by_refusals() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "1.").unwrap();
    let followed = follow(&path);
    let (mut changes, mut refusals) = (followed.subscribe(), followed.subscribe());
    assert!(changes.wait(Duration::ZERO).is_none());
    assert!(refusals.wait_refused(Duration::ZERO).is_none());
    fs::write(&path, "2.").unwrap();
    assert_eq!(block_on(changes.changed()).as_str(), "2.");
    fs::write(&path, "3").unwrap();
    loop {
        // A reading of the moment between truncation and writing may come first.
        let refusal = block_on(refusals.refused());
        if refusal.error.to_string() == "incomplete: \"3\"" {
            break;
        }
    }
    fs::write(&path, "4.").unwrap();
    assert_eq!(block_on(changes.changed()).as_str(), "4.");
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<R>(future: impl Future<Output = R>) -> R {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result,
            Poll::Pending => thread::park_timeout(DEADLINE),
        }
    }
    panic!("nothing came")
}

#[test]
fn the_thread_ends_with_the_last_handle() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "1.").unwrap();
    let own = path.clone();
    let (followed, thread) = FollowedFiles::launch(
        None,
        FileSet::new().required(&path),
        options(),
        boxed(move |files, _| text(files, &own)),
        watch::system(),
    )
    .unwrap();
    let clone = followed.clone();
    let mut subscription = clone.subscribe();
    drop((followed, clone));

    // A subscription is a handle too.
    fs::write(&path, "2.").unwrap();
    subscription.wait_for("2.");
    assert!(!thread.is_finished());

    drop(subscription);
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(thread.join().is_ok()));
    assert_eq!(end.recv_timeout(DEADLINE), Ok(true));
}
