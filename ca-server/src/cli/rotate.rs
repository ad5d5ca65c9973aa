//! `ca-server rotate`: an operator's word to a running server.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use clap::ValueEnum as _;

use crate::args::RotateArgs;
use crate::control;

/// Has the server take one step, and prints where the rotation stands.
///
/// # Errors
/// When no server runs on the folder, or it refuses the step.
pub fn rotate(args: &RotateArgs) -> Result<(), RotateError> {
    let path = control::path(&args.data_dir);
    let io = |cause| RotateError::Io {
        path: path.clone(),
        cause,
    };
    let mut stream = UnixStream::connect(&path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => RotateError::NotRunning {
            folder: args.data_dir.clone(),
        },
        _ => io(cause),
    })?;
    stream
        .set_read_timeout(Some(control::DEADLINE))
        .map_err(io)?;
    let step = args
        .step
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default();
    writeln!(stream, "rotate {step}").map_err(io)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(io)?;
    match (
        answer.strip_prefix(control::OK),
        answer.strip_prefix(control::FAILED),
    ) {
        (Some(report), _) => {
            print!("{report}");
            Ok(())
        }
        (None, Some(refusal)) => Err(RotateError::Refused(refusal.trim().into())),
        (None, None) => Err(RotateError::Refused("the server gave no answer".into())),
    }
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// Nobody holds the folder.
    #[error("{}: no ca-server runs on it", folder.display())]
    NotRunning {
        /// The data folder.
        folder: PathBuf,
    },
    /// The server cannot be asked.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The control socket.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// The server says no.
    #[error("{0}")]
    Refused(String),
}
