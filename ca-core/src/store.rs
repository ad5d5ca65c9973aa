//! Where the state of a CA lives between two runs: the seam, and the directory that is the embedded default.

use std::path::PathBuf;

use crate::authority::BoxFuture;
use crate::state::AuthorityState;

#[cfg(feature = "store")]
mod directory;

#[cfg(feature = "store")]
pub use directory::DirectoryStore;

/// Keeps the state of one CA. Several processes may share a store: who writes names the revision it has seen, and
/// only the first of two writers succeeds.
pub trait AuthorityStore: Send + Sync + std::fmt::Debug {
    /// The newest complete state; `None` before the first.
    fn load(&self) -> BoxFuture<'_, Result<Option<Stored>, StoreError>>;

    /// Makes `state` the newest one, provided that the newest so far is `replacing` (`None`: there is none).
    /// When it returns, the state survives a power cut.
    fn save(
        &self,
        state: AuthorityState,
        replacing: Option<Revision>,
    ) -> BoxFuture<'_, Result<Stored, StoreError>>;
}

/// A state as it lies in a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stored {
    /// The state.
    pub state: AuthorityState,
    /// Which one it is.
    pub revision: Revision,
}

impl Stored {
    /// For implementations of [`AuthorityStore`].
    pub fn new(state: AuthorityState, revision: Revision) -> Self {
        Self { state, revision }
    }
}

/// The name that a store gives to one state: equal if and only if the state is the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revision(String);

impl Revision {
    /// For implementations of [`AuthorityStore`].
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a state was not loaded or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refuses. The path is what was being read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        cause: std::io::Error,
    },
    /// Another process has it open.
    #[error("{}: in use by another process", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It is complete, but not a state: somebody has edited it. Nothing is overwritten.
    #[error("{}: {cause}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Somebody else has written first: load again.
    #[error("the state was changed by somebody else")]
    Conflict,
    /// A store that cannot be reached. Try again later.
    #[error("{0}")]
    Unavailable(String),
}
