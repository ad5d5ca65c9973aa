//! How the following goes, for people and metrics.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::set::ReadError;

/// How the following goes. A value of one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// How often the files have been looked at.
    pub checks: u64,
    /// When they were last looked at.
    pub checked_at: Instant,
    /// When the current value was published. `None` while it is the one given at the start.
    pub published_at: Option<Instant>,
    /// How many contents have been refused. What is refused again without a change is not counted again.
    pub refusals: u64,
    /// The last refusal, also when it is over.
    pub last_refusal: Option<Refusal>,
    /// Whether what is on disk now is refused, so that the current value is an older one.
    pub is_refused: bool,
    /// Why changes may be noticed only at the next periodic check. `None` when the system reports them all.
    pub watch_error: Option<Arc<str>>,
}

/// Content that was not published.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// Why.
    pub error: Arc<FollowError>,
    /// When it was first seen.
    pub at: Instant,
}

/// Why files are not followed, or why what they hold is not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// They are not there as a whole.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// They do not parse.
    #[error("{0}")]
    Parse(#[source] Box<dyn Error + Send + Sync>),
    /// The parser panicked.
    #[error("the parser of the files panicked")]
    Panicked,
    /// The system has no thread for it.
    #[error("cannot start the thread that follows files: {0}")]
    Thread(#[source] io::Error),
}
