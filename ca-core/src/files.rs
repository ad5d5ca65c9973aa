//! Files that change under us: mounted certificates, plugged-in CA keys, key sets, policies.
//!
//! [`FollowedFiles`] reads a [`FileSet`] as one [`Snapshot`], parses it, and does so again whenever the files change.
//! **Only what parses is published**; until then readers keep the last good value, and the refusal is counted and
//! shown in [`Status`].
//!
//! ```
//! use std::time::Duration;
//!
//! use ca_core::TrustBundle;
//! use ca_core::files::{FileSet, FollowOptions, FollowedFiles};
//! # use ca_core::testing::TestCa;
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("root-cert.pem");
//! # let (old, new) = (TestCa::new("old").roots(), TestCa::new("new").roots());
//! # std::fs::write(&path, old.to_pem())?;
//!
//! // `path` may be a plain file, or a link into a Kubernetes volume.
//! let roots = FollowedFiles::start(
//!     FileSet::new().required(&path),
//!     FollowOptions::new(),
//!     {
//!         let path = path.clone();
//!         move |files, _previous| {
//!             Ok::<_, Box<dyn std::error::Error + Send + Sync>>(TrustBundle::from_pem(files.require(&path)?)?)
//!         }
//!     },
//! )?;
//! let mut changes = roots.subscribe();
//!
//! std::fs::write(&path, new.to_pem())?;
//!
//! // In async code: `changes.changed().await`, with any runtime.
//! let trusted = changes.wait(Duration::from_secs(20)).ok_or("no change was seen")?;
//! assert_eq!(trusted.to_pem(), new.to_pem());
//! assert_eq!(roots.current().to_pem(), new.to_pem());
//! assert_eq!(roots.status().refusals, 0);
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! ```
//!
//! # What is followed
//!
//! - The directories on the resolved way to each file are watched, all of them, through every symbolic link: the
//!   `..data` swap of a Kubernetes volume, links from one volume into another, and a directory that is replaced or
//!   appears later.
//! - The files are read when they have been quiet for a moment ([`FollowOptions::debounce`]), and all together: two
//!   readings in a row must agree, and each link is followed once for all files. A certificate and a key that are
//!   replaced by one swap of a link are never seen mixed. **Files that are overwritten one after the other can be**:
//!   the parser must check that they belong together.
//! - Content that is equal to the published one is not published again.
//! - Where the system reports no changes ([`Status::watch_error`]), the files are read from time to time
//!   ([`FollowOptions::recheck`], and at least every five seconds). Content that was refused is judged again then: a certificate may have become valid.
//!
//! Each set has one thread, which ends with the last handle, and one more that belongs to the system's watcher.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use event_listener::Listener;

mod bell;
mod follower;
mod options;
mod published;
mod resolve;
mod set;
mod status;
mod watch;

use bell::Bell;
use follower::{Cell, Follower, Lookout, Parse, Start};
use watch::{Connect, Watch};

pub use options::FollowOptions;
pub use published::{PublishedFile, PublishedFolder};
pub use set::{FileSet, ReadError, Snapshot};
pub use status::{FollowError, Refusal, Status};

/// The last good value of a set of files. Readers never wait; cheap to clone, all clones are one following, which ends
/// with the last of them.
pub struct FollowedFiles<T>(Arc<Handle<T>>);

/// Exists as long as somebody may read.
struct Handle<T> {
    cell: Arc<Cell<T>>,
    bell: Arc<Bell>,
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        self.bell.stop();
    }
}

impl<T: Send + Sync + 'static> FollowedFiles<T> {
    /// Reads `files`, which must parse, and follows them from then on. **Blocks** on the disk.
    ///
    /// `parse` gets the files and the value that theirs would replace, which is `None` only the first time. It may
    /// refuse a replacement that does not suit what it replaces.
    ///
    /// # Errors
    /// When the files cannot be read or do not parse. That the system reports no changes is not an error: see
    /// [`Status::watch_error`].
    pub fn start<E: Into<Box<dyn Error + Send + Sync>>>(
        files: FileSet,
        options: FollowOptions,
        parse: impl FnMut(&Snapshot, Option<&T>) -> Result<T, E> + Send + 'static,
    ) -> Result<Self, FollowError> {
        let (followed, _thread) =
            Self::launch(None, files, options, boxed(parse), watch::system())?;
        Ok(followed)
    }

    /// Follows `files`, which may be incomplete or unreadable so far: until they parse for the first time, `initial` is
    /// the current value. **Blocks** on the disk.
    ///
    /// # Errors
    /// When a path is empty, or the system has no thread for it.
    pub fn start_with<E: Into<Box<dyn Error + Send + Sync>>>(
        initial: T,
        files: FileSet,
        options: FollowOptions,
        parse: impl FnMut(&Snapshot, Option<&T>) -> Result<T, E> + Send + 'static,
    ) -> Result<Self, FollowError> {
        let (followed, _thread) =
            Self::launch(Some(initial), files, options, boxed(parse), watch::system())?;
        Ok(followed)
    }

    fn launch(
        initial: Option<T>,
        files: FileSet,
        options: FollowOptions,
        mut parse: Parse<T>,
        connect: Connect,
    ) -> Result<(Self, JoinHandle<()>), FollowError> {
        let bell = Arc::new(Bell::default());
        let watch = Watch::new(Arc::clone(&bell), connect);
        let mut lookout = Lookout::new(files.absolute()?, watch);
        let follower = if let Some(value) = initial {
            let start = Start {
                value,
                published: None,
                settled: true,
            };
            let mut follower = Follower::new(start, lookout, parse, options, Arc::clone(&bell));
            follower.check();
            follower
        } else {
            let look = lookout.look();
            let snapshot = look.snapshot?;
            let start = Start {
                value: parse(&snapshot, None)?,
                published: Some(*snapshot.content_hash()),
                settled: look.settled,
            };
            Follower::new(start, lookout, parse, options, Arc::clone(&bell))
        };
        let cell = follower.cell();
        let thread = thread::Builder::new()
            .name("followed-files".into())
            .spawn(move || follower.run())
            .map_err(FollowError::Thread)?;
        Ok((Self(Arc::new(Handle { cell, bell })), thread))
    }
}

impl<T> FollowedFiles<T> {
    /// The value to use. **Take it once for each piece of work**, so that all parts of it belong together.
    pub fn current(&self) -> Arc<T> {
        self.0.cell.current.load_full()
    }

    /// How many contents have been published: 1 after [`start`](Self::start), 0 or 1 after
    /// [`start_with`](Self::start_with).
    pub fn generation(&self) -> u64 {
        self.0.cell.generation.load(Ordering::Acquire)
    }

    /// How the following goes. Cheap: nothing is read.
    pub fn status(&self) -> Arc<Status> {
        self.0.cell.status.load_full()
    }

    /// Follows publications and refusals from here on.
    pub fn subscribe(&self) -> Subscription<T> {
        Subscription {
            seen: self.generation(),
            seen_refusals: self.status().refusals,
            followed: self.clone(),
        }
    }
}

impl<T> Clone for FollowedFiles<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Without the value, which may be a key.
impl<T> fmt::Debug for FollowedFiles<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowedFiles")
            .field("generation", &self.generation())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// A reader that wants to know of each new value, or of each refusal. Works with any async runtime, or with none. It is a
/// handle too: the files are followed as long as it exists.
#[derive(Debug)]
pub struct Subscription<T> {
    followed: FollowedFiles<T>,
    seen: u64,
    seen_refusals: u64,
}

impl<T> Subscription<T> {
    /// Waits for a value newer than the last one this subscription has returned; intermediate ones are skipped.
    pub async fn changed(&mut self) -> Arc<T> {
        loop {
            // Registered before the look: a publication between the two is not missed.
            let checked = self.followed.0.cell.checked.listen();
            if let Some(value) = self.newer() {
                return value;
            }
            checked.await;
        }
    }

    /// Waits for a refusal newer than the last one this subscription has returned; intermediate ones are skipped.
    pub async fn refused(&mut self) -> Refusal {
        loop {
            let checked = self.followed.0.cell.checked.listen();
            if let Some(refusal) = self.newer_refusal() {
                return refusal;
            }
            checked.await;
        }
    }

    /// As [`changed`](Self::changed), but **blocks this thread**, no longer than `timeout`. `None`: no newer value.
    pub fn wait(&mut self, timeout: Duration) -> Option<Arc<T>> {
        let cell = Arc::clone(&self.followed.0.cell);
        wait_for(&cell, timeout, || self.newer())
    }

    /// As [`refused`](Self::refused), but **blocks this thread**, no longer than `timeout`. `None`: no newer refusal.
    pub fn wait_refused(&mut self, timeout: Duration) -> Option<Refusal> {
        let cell = Arc::clone(&self.followed.0.cell);
        wait_for(&cell, timeout, || self.newer_refusal())
    }

    fn newer(&mut self) -> Option<Arc<T>> {
        let generation = self.followed.generation();
        if generation == self.seen {
            return None;
        }
        self.seen = generation;
        Some(self.followed.current())
    }

    fn newer_refusal(&mut self) -> Option<Refusal> {
        let status = self.followed.status();
        if status.refusals == self.seen_refusals {
            return None;
        }
        self.seen_refusals = status.refusals;
        status.last_refusal.clone()
    }
}

fn wait_for<T, R>(
    cell: &Cell<T>,
    timeout: Duration,
    mut look: impl FnMut() -> Option<R>,
) -> Option<R> {
    let start = Instant::now();
    loop {
        let checked = cell.checked.listen();
        if let Some(found) = look() {
            return Some(found);
        }
        let left = timeout.saturating_sub(start.elapsed());
        if checked.wait_timeout(left).is_none() {
            return look();
        }
    }
}

fn boxed<T, E: Into<Box<dyn Error + Send + Sync>>>(
    mut parse: impl FnMut(&Snapshot, Option<&T>) -> Result<T, E> + Send + 'static,
) -> Parse<T> {
    Box::new(move |files, previous| {
        parse(files, previous).map_err(|e| FollowError::Parse(e.into()))
    })
}

#[cfg(test)]
mod tests;
