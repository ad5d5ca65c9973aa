//! `ca-server policy`.

use std::fmt;
use std::path::PathBuf;

use ca_auth::{Policy, PolicyError};
use ca_core::TrustDomain;

use crate::args::{PolicyArgs, PolicyVerb};

/// Does what was asked with a policy file, without a server, and says how it went. `mesh` is the trust domain where none was named.
///
/// # Errors
/// When the file cannot be read or is no policy.
pub(super) fn policy(args: &PolicyArgs, mesh: &TrustDomain) -> Result<String, PolicyFileError> {
    let PolicyVerb::Check { file, trust_domain } = &args.verb;
    let text = std::fs::read_to_string(file).map_err(|cause| PolicyFileError::Read {
        path: file.clone(),
        cause,
    })?;
    let policy = Policy::parse(&text, trust_domain.as_ref().unwrap_or(mesh)).map_err(|cause| {
        PolicyFileError::Wrong {
            path: file.clone(),
            cause,
        }
    })?;
    let (allow, deny, limit) = policy.len();
    let authorities = match policy.authorities() {
        0 => String::new(),
        some => format!(", {some} certificate-authority"),
    };
    Ok(format!(
        "{}: good ({allow} allow, {deny} deny, {limit} limit{authorities})\n",
        file.display()
    ))
}

/// What is wrong with a policy file.
#[derive(Debug)]
#[non_exhaustive]
pub(super) enum PolicyFileError {
    /// The system refuses, or it is not text.
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: std::io::Error,
    },
    /// It is no policy.
    Wrong {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong.
        cause: PolicyError,
    },
}

impl fmt::Display for PolicyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, cause } => write!(f, "{}: {cause}", path.display()),
            Self::Wrong { path, cause } => {
                let count = cause.problems().len();
                write!(f, "{}: {count} wrong", path.display())?;
                // As compilers do, so that editors find the place.
                for problem in cause.problems() {
                    let (line, column) = (problem.line, problem.column);
                    write!(
                        f,
                        "\n{}:{line}:{column}: {}",
                        path.display(),
                        problem.message
                    )?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for PolicyFileError {}
