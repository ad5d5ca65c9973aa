//! The key that waits for its certificate: on the disk before anybody learns of it, so that a certificate that comes
//! after a crash, or weeks later, still has its key.

use std::io;
use std::path::{Path, PathBuf};

use ca_core::crypto::AWS_LC_RS;
use ca_core::{KeyError, KeyKind, PrivateKey, SigningKey as _};
use zeroize::Zeroizing;

use crate::private_file::{self, Readers};

/// The file, and what it holds.
#[derive(Debug)]
pub(super) struct PendingKey {
    path: PathBuf,
    /// Of the next one.
    kind: KeyKind,
    key: Option<PrivateKey>,
}

impl PendingKey {
    /// What is there, which may be of another kind than the keys that are made from now on.
    pub(super) fn at(path: &Path, kind: KeyKind) -> Result<Self, FileError> {
        let key = match std::fs::read(path).map(Zeroizing::new) {
            Ok(pem) => Some(
                PrivateKey::from_pem_with(&pem, &AWS_LC_RS).map_err(|cause| FileError::Key {
                    path: path.into(),
                    cause,
                })?,
            ),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
            Err(cause) => return Err(FileError::io(path, cause)),
        };
        Ok(Self {
            path: path.into(),
            kind,
            key,
        })
    }

    pub(super) fn is_there(&self) -> bool {
        self.key.is_some()
    }

    /// The key, made now if there is none.
    pub(super) fn key(&mut self) -> Result<PrivateKey, FileError> {
        if let Some(key) = &self.key {
            return Ok(key.clone());
        }
        let key =
            PrivateKey::generate_with(self.kind, &AWS_LC_RS).map_err(|cause| FileError::Key {
                path: self.path.clone(),
                cause,
            })?;
        private_file::write(&self.path, key.to_pkcs8_pem().as_bytes(), Readers::Owner)
            .map_err(|cause| FileError::io(&self.path, cause))?;
        self.key = Some(key.clone());
        Ok(key)
    }

    /// Forgets the key if it is this one, which is kept elsewhere now. Tells whether it was.
    pub(super) fn forget(&mut self, kept: &PrivateKey) -> Result<bool, FileError> {
        let is_this = self
            .key
            .as_ref()
            .is_some_and(|key| key.public_key() == kept.public_key());
        if is_this {
            self.key = None;
            match std::fs::remove_file(&self.path) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::io(&self.path, cause));
                }
                _ => {}
            }
        }
        Ok(is_this)
    }
}

/// A file of this CA that the system does not let us have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refuses.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// Not a key, or none could be made.
    #[error("{}: {cause}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: KeyError,
    },
}

impl FileError {
    pub(super) fn io(path: &Path, cause: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use ca_core::PublicKeyKind;

    use super::*;

    #[test]
    fn a_key_outlives_the_process_until_it_is_kept_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pending-key.pem");
        let (kind, another) = (KeyKind::EcdsaP256, KeyKind::EcdsaP384);
        let first = PendingKey::at(&path, kind).unwrap().key().unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut again = PendingKey::at(&path, another).unwrap();
        assert_eq!(again.key().unwrap().public_key(), first.public_key());
        let other = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        assert!(!again.forget(&other).unwrap() && path.exists());
        assert!(again.forget(&first).unwrap() && !path.exists());
        let next = again.key().unwrap();
        assert_eq!(next.public_key().kind(), PublicKeyKind::EcdsaP384);
        std::fs::write(&path, "junk").unwrap();
        let error = PendingKey::at(&path, kind).unwrap_err().to_string();
        assert!(
            error.contains("pending-key.pem: not a private key"),
            "{error}"
        );
    }
}
