//! The crash-safe directory store.
//!
//! Each state is a folder `authority/<number>` with the files that Istio gives a plugged-in CA: `ca-key.pem`,
//! `ca-cert.pem`, `cert-chain.pem`, `root-cert.pem`. A new one is written and flushed under another name, then renamed:
//! a folder whose name is a number is complete, and the highest number is the newest. The one before it is kept.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{AuthorityStore, Revision, StoreError, Stored};
use crate::authority::BoxFuture;
use crate::crypto::{Backend, RING};
use crate::state::AuthorityState;

/// A folder that holds the state of one CA, and is held by one process.
#[derive(Debug)]
pub struct DirectoryStore {
    states: PathBuf,
    backend: &'static Backend,
    /// Locked for as long as the store lives; the system lets go of it however the process ends.
    _lock: File,
}

impl DirectoryStore {
    /// Opens or creates the folder (mode 0700) and takes its lock. Keys are loaded with [`RING`].
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it open; [`StoreError::Io`] when it cannot be read or written.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(folder, &RING)
    }

    /// As [`DirectoryStore::open`]; keys are loaded with `backend`.
    ///
    /// # Errors
    /// As [`DirectoryStore::open`].
    pub fn open_with(
        folder: impl AsRef<Path>,
        backend: &'static Backend,
    ) -> Result<Self, StoreError> {
        let folder = folder.as_ref();
        create_private_folder(folder)?;
        let lock_path = folder.join("lock");
        let lock = private_file()
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse {
                    path: folder.into(),
                });
            }
            Err(TryLockError::Error(cause)) => {
                return Err(StoreError::Io {
                    path: lock_path,
                    cause,
                });
            }
        }
        let states = folder.join("authority");
        create_private_folder(&states)?;
        let store = Self {
            states,
            backend,
            _lock: lock,
        };
        store.remove_unfinished()?;
        Ok(store)
    }

    /// The numbers of the complete states, ascending.
    fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.states).map_err(at(&self.states))? {
            let name = entry.map_err(at(&self.states))?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn folder_of(&self, number: u64) -> PathBuf {
        self.states.join(format!("{number:010}"))
    }

    fn load_newest(&self) -> Result<Option<Stored>, StoreError> {
        let Some(&number) = self.numbers()?.last() else {
            return Ok(None);
        };
        let folder = self.folder_of(number);
        // Read first: a file that the system refuses is another failure than one that is not there.
        let mut files = HashMap::new();
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let path = entry.map_err(at(&folder))?.path();
            let text = Zeroizing::new(fs::read(&path).map_err(at(&path))?);
            files.extend(
                path.file_name()
                    .and_then(|name| name.to_str())
                    .map(|name| (name.to_owned(), text)),
            );
        }
        let state = AuthorityState::from_files(|name| files.get(name).cloned(), self.backend)
            .map_err(|e| StoreError::Corrupt {
                path: folder.join(e.name),
                cause: e.cause,
            })?;
        Ok(Some(Stored {
            state,
            revision: revision_of(number),
        }))
    }

    /// `before` is called in front of every step that changes the disk: tests stop there, as a crash would.
    fn save_newest(
        &self,
        state: &AuthorityState,
        replacing: Option<&Revision>,
        before: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<Revision, StoreError> {
        let numbers = self.numbers()?;
        let newest = numbers.last().copied();
        if newest.map(revision_of).as_ref() != replacing {
            return Err(StoreError::Conflict);
        }
        let number = newest.unwrap_or(0) + 1;
        let (unfinished, complete) = (self.states.join(UNFINISHED), self.folder_of(number));
        self.remove_unfinished()?;

        let mut step = |path: &Path, change: &dyn Fn() -> io::Result<()>| {
            before().and_then(|()| change()).map_err(at(path))
        };
        step(&unfinished, &|| {
            DirBuilder::new().mode(0o700).create(&unfinished)
        })?;
        for (name, text) in state.to_files() {
            let path = unfinished.join(name);
            step(&path, &|| {
                let mut file = private_file().create_new(true).open(&path)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })?;
        }
        step(&unfinished, &|| sync_folder(&unfinished))?;
        step(&complete, &|| fs::rename(&unfinished, &complete))?;
        step(&self.states, &|| sync_folder(&self.states))?;
        for old in numbers.iter().rev().skip(1) {
            let path = self.folder_of(*old);
            // Numbers decide, so an old state that stays behind does no harm; it must not fail a state that is saved.
            let _ = step(&path, &|| fs::remove_dir_all(&path));
        }
        Ok(revision_of(number))
    }

    fn remove_unfinished(&self) -> Result<(), StoreError> {
        let path = self.states.join(UNFINISHED);
        match fs::remove_dir_all(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Io { path, cause })
            }
            _ => Ok(()),
        }
    }
}

impl AuthorityStore for DirectoryStore {
    fn load(&self) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        Box::pin(std::future::ready(self.load_newest()))
    }

    fn save(
        &self,
        state: AuthorityState,
        replacing: Option<Revision>,
    ) -> BoxFuture<'_, Result<Stored, StoreError>> {
        let saved = self.save_newest(&state, replacing.as_ref(), &mut || Ok(()));
        Box::pin(std::future::ready(
            saved.map(|revision| Stored { state, revision }),
        ))
    }
}

fn create_private_folder(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(at(path))
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// A rename is only on the disk once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn revision_of(number: u64) -> Revision {
    Revision::new(number.to_string())
}

fn at(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError::Io {
        path: path.clone(),
        cause,
    }
}

const UNFINISHED: &str = "unfinished";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::testing::{TestCa, now};

    fn state(name: &str) -> AuthorityState {
        TestCa::new(name).state()
    }

    fn root(stored: &Stored) -> String {
        stored.state.roots().to_pem().to_owned()
    }

    fn save(store: &DirectoryStore, state: &AuthorityState, replacing: Option<&Stored>) -> Stored {
        let revision = store
            .save_newest(state, replacing.map(|s| &s.revision), &mut || Ok(()))
            .unwrap();
        Stored {
            state: state.clone(),
            revision,
        }
    }

    #[test]
    fn what_was_saved_is_loaded_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(folder.path()).unwrap();
        assert!(store.load_newest().unwrap().is_none());
        let first = save(&store, &state("a"), None);
        let second = save(&store, &state("b"), Some(&first));
        drop(store);

        let loaded = DirectoryStore::open(folder.path())
            .unwrap()
            .load_newest()
            .unwrap()
            .unwrap();
        assert_eq!(root(&loaded), root(&second));
        assert_eq!(loaded.revision, second.revision);
        loaded.state.bundle(now()).unwrap();
    }

    #[test]
    fn a_second_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _first = DirectoryStore::open(folder.path()).unwrap();
        let refusal = DirectoryStore::open(folder.path()).unwrap_err();
        assert!(matches!(refusal, StoreError::InUse { .. }));
        assert!(refusal.to_string().ends_with("in use by another process"));
    }

    #[test]
    fn only_the_first_of_two_writers_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(folder.path()).unwrap();
        let first = save(&store, &state("a"), None);
        save(&store, &state("b"), Some(&first));
        for stale in [None, Some(&first.revision)] {
            let late = store.save_newest(&state("c"), stale, &mut || Ok(()));
            assert!(matches!(late, Err(StoreError::Conflict)));
        }
    }

    #[test]
    fn keys_are_readable_by_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(folder.path().join("new")).unwrap();
        save(&store, &state("a"), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("new")), 0o700);
        assert_eq!(mode(&store.states), 0o700);
        assert_eq!(mode(&store.folder_of(1)), 0o700);
        assert_eq!(mode(&store.folder_of(1).join("ca-key.pem")), 0o600);
    }

    #[test]
    fn a_crash_before_any_step_leaves_the_old_state_or_the_new_one() {
        let (old, new) = (state("old"), state("new"));
        let mut steps = 0;
        loop {
            let folder = tempfile::tempdir().unwrap();
            let store = DirectoryStore::open(folder.path()).unwrap();
            let mut stored = save(&store, &old, None);
            stored = save(&store, &old, Some(&stored));
            let mut left = steps;
            let outcome = store.save_newest(&new, Some(&stored.revision), &mut || {
                left -= 1;
                if left < 0 {
                    Err(io::Error::other("crash"))
                } else {
                    Ok(())
                }
            });
            drop(store);

            let store = DirectoryStore::open(folder.path()).unwrap();
            let found = store.load_newest().unwrap().unwrap();
            let is_new = root(&found) == new.roots().to_pem();
            assert!(is_new || root(&found) == old.roots().to_pem());
            assert!(
                is_new || outcome.is_err(),
                "a saved state was lost at step {steps}"
            );
            assert_eq!(is_new, steps > RENAME_STEP, "step {steps}");
            found.state.bundle(now()).unwrap();
            // And the store goes on from there.
            save(&store, &new, Some(&found));
            if left >= 0 {
                assert_eq!(steps, STEPS);
                return;
            }
            steps += 1;
        }
    }

    /// Folder, four files, flush, rename, flush, one old state removed.
    const STEPS: i32 = 9;
    const RENAME_STEP: i32 = 6;

    #[test]
    fn an_edited_state_is_reported_by_file_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(folder.path()).unwrap();
        save(&store, &state("a"), None);
        for name in ["ca-key.pem", "ca-cert.pem", "root-cert.pem"] {
            let path = store.folder_of(1).join(name);
            let good = fs::read(&path).unwrap();
            fs::write(&path, "junk").unwrap();
            let error = store.load_newest().unwrap_err();
            assert!(
                matches!(&error, StoreError::Corrupt { path: p, .. } if *p == path),
                "{error}"
            );
            fs::write(&path, good).unwrap();
        }
        assert!(store.load_newest().unwrap().is_some());
    }
}
