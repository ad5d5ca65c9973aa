//! Standard output: for answers, and for what an operator is to know when the server is up.

use std::fmt;
use std::io::{self, Write as _};

/// Prints it, all of it before this returns. The only one who does: `print!` panics when the reader has gone.
///
/// A reader who has gone (`ca-server status | head`) has seen what it wanted to see, which is no failure.
///
/// # Errors
/// When the system does not take it for another reason.
pub(crate) fn print(text: &impl fmt::Display) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => Err(OutputError(cause)),
        _ => Ok(()),
    }
}

/// Prints what nobody has asked for. The server goes on also where that cannot be done.
pub(crate) fn announce(text: &impl fmt::Display) {
    if let Err(error) = print(text) {
        tracing::warn!("{error}");
    }
}

/// An answer that does not arrive.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub(crate) struct OutputError(io::Error);
