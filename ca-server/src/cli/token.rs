//! `ca-server token`, and the key behind it.

use std::io;
use std::path::{Path, PathBuf};

use ca_auth::{LocalIssuer, LocalIssuerError, ServiceAccount};
use time::OffsetDateTime;

use crate::args::TokenArgs;
use crate::control;
use crate::private_file::{self, Readers};
use crate::report::Report;

/// One token and nothing else. `others_tokens` is what a server with this configuration accepts instead of those of its own.
///
/// # Errors
/// When nobody would take the token, the folder has no token key, or the names cannot be part of an identity.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge: the token's dates are those of the person who types"
)]
pub(super) fn token(
    args: &TokenArgs,
    data_dir: &Path,
    others_tokens: Option<&'static str>,
) -> Result<String, TokenKeyError> {
    match Acceptance::of_running(data_dir) {
        Some(Acceptance::Own) => {}
        Some(Acceptance::Others(accepted)) => return Err(TokenKeyError::NotTaken { accepted }),
        // Then what it would do that is configured like this.
        None => {
            if let Some(accepted) = others_tokens {
                let accepted = accepted.into();
                return Err(TokenKeyError::NotTaken { accepted });
            }
        }
    }
    let issuer = load_existing(data_dir)?;
    let account = ServiceAccount::new(&args.namespace, &args.service_account)
        .map_err(TokenKeyError::Account)?;
    let now = OffsetDateTime::now_utc();
    let token = issuer.issue(&account, &args.audience, args.ttl, now)?;
    Ok(format!("{token}\n"))
}

/// Whose tokens a server accepts.
enum Acceptance {
    Own,
    /// In words.
    Others(String),
}

impl Acceptance {
    /// `None` where no server runs on the folder, or it does not say.
    fn of_running(data_dir: &Path) -> Option<Self> {
        let json = control::order(data_dir, control::STATUS).ok()?;
        let report: Report = serde_json::from_str(&json).ok()?;
        // One that has no name is known by where its keys are.
        let issuers = report.authenticators.into_iter().filter_map(|judge| {
            // Whoever has no keys judges no tokens.
            let source = judge.keys?.source;
            let unknown = || "an issuer without a name".into();
            Some(judge.issuer.or(source).unwrap_or_else(unknown))
        });
        let issuers: Vec<String> = issuers.collect();
        if issuers.is_empty() {
            // Authentication is switched off, which may end before the token does.
            return None;
        }
        Some(
            if issuers.iter().any(|issuer| issuer == LocalIssuer::NAME) {
                Self::Own
            } else {
                Self::Others(format!("those of {}", issuers.join(", ")))
            },
        )
    }
}

/// The local token issuer of a data folder that has one.
pub(crate) fn load_existing(data_dir: &Path) -> Result<LocalIssuer, TokenKeyError> {
    load(data_dir)?.ok_or_else(|| TokenKeyError::None {
        folder: data_dir.into(),
    })
}

/// The local token issuer of a data folder; a new one when there is none.
pub(crate) fn load_or_create(data_dir: &Path) -> Result<LocalIssuer, TokenKeyError> {
    if let Some(issuer) = load(data_dir)? {
        return Ok(issuer);
    }
    let issuer = LocalIssuer::generate()?;
    let path = data_dir.join(KEY_FILE);
    private_file::write(&path, issuer.to_pkcs8_pem().as_bytes(), Readers::Owner)
        .map_err(|cause| TokenKeyError::Io { path, cause })?;
    Ok(issuer)
}

fn load(data_dir: &Path) -> Result<Option<LocalIssuer>, TokenKeyError> {
    let path = data_dir.join(KEY_FILE);
    let pem = match std::fs::read(&path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(TokenKeyError::Io { path, cause }),
    };
    LocalIssuer::from_pem(&pem)
        .map(Some)
        .map_err(|cause| TokenKeyError::Corrupt { path, cause })
}

/// Why there is no token, or no issuer of tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenKeyError {
    /// The server believes others.
    #[error("the server takes no tokens of its own: it accepts {accepted}")]
    NotTaken {
        /// What it accepts.
        accepted: String,
    },
    /// No CA with a local token issuer has been started there.
    #[error("{}: no {KEY_FILE} in it: start ca-server with this --data-dir first", folder.display())]
    None {
        /// The data folder.
        folder: PathBuf,
    },
    /// The system refuses.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// Not a key for tokens.
    #[error("{}: {cause}", path.display())]
    Corrupt {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        cause: LocalIssuerError,
    },
    /// The names cannot be part of an identity.
    #[error("{0}")]
    Account(ca_core::IdentityError),
    /// The token cannot be made.
    #[error(transparent)]
    Issuer(#[from] LocalIssuerError),
}

const KEY_FILE: &str = "local-token-key.pem";
