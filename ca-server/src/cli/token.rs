//! `ca-server token`, and the key behind it.

use std::io;
use std::path::{Path, PathBuf};

use ca_auth::{LocalIssuer, LocalIssuerError, ServiceAccount};
use time::OffsetDateTime;

use crate::args::TokenArgs;
use crate::private_file::{self, Readers};

/// Prints one token and nothing else.
///
/// # Errors
/// When the folder has no token key, or the names cannot be part of an identity.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge: the token's dates are those of the person who types"
)]
pub(super) fn print_token(args: &TokenArgs, data_dir: &Path) -> Result<(), TokenKeyError> {
    let issuer = load_existing(data_dir)?;
    let account = ServiceAccount::new(&args.namespace, &args.service_account)
        .map_err(TokenKeyError::Account)?;
    println!(
        "{}",
        issuer.issue(
            &account,
            &args.audience,
            args.ttl,
            OffsetDateTime::now_utc()
        )?
    );
    Ok(())
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
