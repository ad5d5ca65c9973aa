//! Secrets that somebody else keeps in files.
//!
//! Files are followed from when the first client asks for them. What does not read, does not fit
//! together or has expired is not served: clients keep what they have, and the refusal is shown.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ca_core::files::{FileSet, FollowError, FollowOptions, FollowedFiles, Snapshot};
use time::OffsetDateTime;
use tokio::{sync::watch, task::AbortHandle};

use super::{
    Secret, SecretName, Shelf,
    material::{self, Unusable},
};
use crate::{clock, metrics::Metrics, roots_file};

/// How many sets of files are followed at most. Each costs a thread or two, and any client can ask
/// for any.
const MOST_SETS: usize = 64;

/// Follows files. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Files(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shelf: watch::Sender<Arc<Shelf>>,
    metrics: Arc<Metrics>,
    /// Held for a few instructions, never while files are read.
    sets: Mutex<BTreeMap<SecretName, Set>>,
}

/// One set of files that is followed.
#[derive(Debug)]
struct Set {
    /// How many clients want it. Nobody: it is followed on, so that the last good contents are there
    /// when a client comes back, until the place is needed.
    users: usize,
    task: AbortHandle,
    /// Why what is in the files now is not served.
    trouble: Option<Arc<str>>,
}

/// Which files a secret is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A certificate and its key.
    KeyPair {
        /// The certificate and its intermediates.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// One file of roots.
    Roots(PathBuf),
}

/// Keeps a set of files followed. Dropped when its user wants it no more.
#[derive(Debug)]
pub(crate) struct FollowingFiles {
    name: SecretName,
    files: Files,
}

impl Files {
    pub(super) fn new(shelf: watch::Sender<Arc<Shelf>>, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            shelf,
            metrics,
            sets: Mutex::default(),
        }))
    }

    /// Follows the files that `name` names.
    ///
    /// # Errors
    ///
    /// When too many are followed already.
    pub(crate) fn follow_named(
        &self,
        name: &SecretName,
    ) -> Result<Option<FollowingFiles>, TooMany> {
        match Source::named_by(name) {
            Some(source) => self.follow(name, source).map(Some),
            None => Ok(None),
        }
    }

    /// Serves what `source` holds as `name`.
    ///
    /// # Errors
    ///
    /// When too many are followed already.
    pub(crate) fn follow(
        &self,
        name: &SecretName,
        source: Source,
    ) -> Result<FollowingFiles, TooMany> {
        let mut sets = self.sets();
        if let Some(set) = sets.get_mut(name) {
            set.users += 1;
        } else {
            if sets.len() >= MOST_SETS {
                let unused = sets.iter().find(|(_, set)| set.users == 0);
                let unused = unused.map(|(name, _)| name.clone());
                let unused = unused.ok_or(TooMany {
                    most: MOST_SETS,
                    of: "sets of files",
                })?;
                if let Some(set) = sets.remove(&unused) {
                    set.task.abort();
                }
                self.0
                    .shelf
                    .send_if_modified(|shelf| Arc::make_mut(shelf).remove(&unused));
            }
            let task = tokio::spawn(self.clone().run(name.clone(), source));
            let set = Set {
                users: 1,
                task: task.abort_handle(),
                trouble: None,
            };
            sets.insert(name.clone(), set);
        }
        Ok(FollowingFiles {
            name: name.clone(),
            files: self.clone(),
        })
    }

    /// Every secret whose files hold something that is not served, with the reason.
    pub(crate) fn troubles(&self) -> Vec<(SecretName, Arc<str>)> {
        self.sets()
            .iter()
            .filter_map(|(name, set)| Some((name.clone(), set.trouble.clone()?)))
            .collect()
    }

    async fn run(self, name: SecretName, source: Source) {
        let start = move || source.start();
        // Disks can be slow, and there is one thread for all clients.
        let followed = match tokio::task::spawn_blocking(start).await {
            Ok(Ok(followed)) => followed,
            Ok(Err(error)) => return self.troubled(&name, &error.to_string()),
            Err(error) => return self.troubled(&name, &error.to_string()),
        };
        let mut changes = followed.subscribe();
        let mut refusals = followed.subscribe();
        let mut watched = true;
        loop {
            if let Some(secret) = &*followed.current() {
                self.put(&name, secret);
            }
            let status = followed.status();
            if let Some(error) = &status.watch_error
                && std::mem::take(&mut watched)
            {
                self.0.metrics.file_watcher_failures.inc();
                tracing::warn!(%name, error = &**error, "changes of files may be noticed late");
            }
            match status.last_refusal.as_ref().filter(|_| status.is_refused) {
                Some(refusal) => self.troubled(&name, &refusal.error.to_string()),
                None => {
                    self.set_trouble(&name, None);
                }
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = refusals.refused() => {}
            }
        }
    }

    /// Puts revocation lists beside all roots.
    pub(super) fn revoke(&self, lists: Option<Arc<str>>, now: OffsetDateTime) {
        let some = lists.is_some();
        let changed = self
            .0
            .shelf
            .send_if_modified(|shelf| Arc::make_mut(shelf).revoke(lists, now));
        if changed {
            tracing::info!(some, "the revocation lists have changed");
        }
    }

    pub(super) fn no_lists(&self, path: &Path, reason: &dyn std::fmt::Display) {
        self.0.metrics.file_failures.inc();
        let path = path.display();
        tracing::warn!(%path, %reason, "revocation lists are not taken");
    }

    fn put(&self, name: &SecretName, secret: &Arc<Secret>) {
        let now = clock::now();
        let changed = self.0.shelf.send_if_modified(|shelf| {
            Arc::make_mut(shelf).put([(name.clone(), Arc::clone(secret))], now)
        });
        if changed {
            tracing::info!(%name, version = %secret.version(), "read from files");
        }
    }

    fn troubled(&self, name: &SecretName, reason: &str) {
        if self.set_trouble(name, Some(reason.into())) {
            self.0.metrics.file_failures.inc();
            tracing::warn!(%name, reason, "what is in the files is not served");
        }
    }

    /// Whether it is another trouble than before.
    fn set_trouble(&self, name: &SecretName, trouble: Option<Arc<str>>) -> bool {
        let mut sets = self.sets();
        let Some(set) = sets.get_mut(name) else {
            return false;
        };
        std::mem::replace(&mut set.trouble, trouble) != set.trouble
    }

    fn sets(&self) -> MutexGuard<'_, BTreeMap<SecretName, Set>> {
        self.0.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FollowingFiles {
    fn drop(&mut self) {
        if let Some(set) = self.files.sets().get_mut(&self.name) {
            set.users -= 1;
        }
    }
}

impl Source {
    /// What a name means that says which files it is about.
    fn named_by(name: &SecretName) -> Option<Self> {
        match name {
            SecretName::Roots | SecretName::KeyPair => None,
            #[cfg(feature = "gateway")]
            SecretName::CredentialRoots(_) | SecretName::Credential(_) => None,
            SecretName::FileRoots(path) => Some(Self::Roots(PathBuf::from(&**path))),
            SecretName::SystemRoots => Some(Self::Roots(roots_file::of_the_system())),
            SecretName::FilePair { certificate, key } => Some(Self::KeyPair {
                certificate: PathBuf::from(&**certificate),
                key: PathBuf::from(&**key),
            }),
        }
    }

    fn start(self) -> Result<FollowedFiles<Option<Arc<Secret>>>, FollowError> {
        let set = match &self {
            Self::KeyPair { certificate, key } => {
                FileSet::new().required(certificate).required(key)
            }
            Self::Roots(path) => FileSet::new().required(path),
        };
        let parse = move |files: &Snapshot, _: Option<&_>| self.parse(files);
        FollowedFiles::start_with(None, set, FollowOptions::new(), parse)
    }

    fn parse(
        &self,
        files: &Snapshot,
    ) -> Result<Option<Arc<Secret>>, Box<dyn std::error::Error + Send + Sync>> {
        let explain = |path: &Path, error: Unusable| format!("{}: {error}", path.display());
        let secret = match self {
            Self::KeyPair { certificate, key } => material::key_pair(
                files.require(certificate)?,
                files.require(key)?,
                clock::now(),
            )
            .map_err(|error| explain(certificate, error))?,
            Self::Roots(path) => {
                material::roots(files.require(path)?).map_err(|error| explain(path, error))?
            }
        };
        Ok(Some(Arc::new(secret)))
    }
}

/// More is wanted than is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{most} {of} are in use, and no more are followed")]
pub(crate) struct TooMany {
    pub(crate) most: usize,
    /// What there are too many of.
    pub(crate) of: &'static str,
}
