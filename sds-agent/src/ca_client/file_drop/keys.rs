//! The key of the certificate and the key of the request, which may have to outlive the agent.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ca_core::{KeyError, KeyKind, PrivateKey, PublicKey, SigningKey as _};

use super::{DropError, write_file};

const CURRENT: &str = "workload.key";
const NEXT: &str = "workload-next.key";

/// Both keys.
pub(super) struct Keys {
    /// What has a certificate, or had one before a restart.
    current: Option<PrivateKey>,
    /// What the request is for.
    next: Option<PrivateKey>,
    /// Where they are kept, if they are.
    folder: Option<PathBuf>,
}

impl Keys {
    pub(super) fn in_memory() -> Self {
        Self {
            current: None,
            next: None,
            folder: None,
        }
    }

    /// # Errors
    ///
    /// When there is one that cannot be used: it is not overwritten, because a certificate may be on its way.
    pub(super) fn kept_in(folder: &Path) -> Result<Self, DropError> {
        Ok(Self {
            current: read(&folder.join(CURRENT))?,
            next: read(&folder.join(NEXT))?,
            folder: Some(folder.to_owned()),
        })
    }

    /// The one whose public half this is.
    pub(super) fn find(&self, public: &PublicKey) -> Option<PrivateKey> {
        let mut both = self.next.iter().chain(&self.current);
        both.find(|key| key.public_key() == public).cloned()
    }

    /// The key to ask a certificate for: the same until it is `in_use`. It is kept before anybody sees a request for it.
    pub(super) fn next(&mut self, in_use: Option<&PublicKey>) -> Result<PrivateKey, KeyError> {
        match self.next.take() {
            Some(next) if Some(next.public_key()) != in_use => {
                self.next = Some(next.clone());
                return Ok(next);
            }
            used => {
                if used.is_some() {
                    self.current = used;
                    // Unless it is kept now, a restart takes it for the next one and finds it by its certificate.
                    self.keep(|folder| fs::rename(folder.join(NEXT), folder.join(CURRENT)));
                }
            }
        }
        let next = PrivateKey::generate(KeyKind::EcdsaP256)?;
        let pem = next.to_pkcs8_pem();
        self.keep(|folder| write_file(&folder.join(NEXT), 0o600, pem.as_bytes()));
        self.next = Some(next.clone());
        Ok(next)
    }

    /// A key that cannot be kept still serves until a restart.
    fn keep(&self, write: impl FnOnce(&Path) -> io::Result<()>) {
        if let Some(folder) = &self.folder
            && let Err(error) = write(folder)
        {
            tracing::warn!(folder = %folder.display(), %error, "cannot keep the key");
        }
    }
}

fn read(path: &Path) -> Result<Option<PrivateKey>, DropError> {
    let pem = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DropError::Read(path.to_owned(), error)),
        Ok(pem) => zeroize::Zeroizing::new(pem),
    };
    let key = PrivateKey::from_pem(&pem).map_err(|error| DropError::Key(path.to_owned(), error))?;
    Ok(Some(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_stays_until_it_is_in_use_and_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Keys::kept_in(folder.path()).unwrap();
        let public = |key: PrivateKey| key.public_key().clone();
        let mut keys = open();
        let first = public(keys.next(None).unwrap());
        assert_eq!(public(keys.next(None).unwrap()), first);
        assert_eq!(public(open().next(None).unwrap()), first, "over a restart");

        let second = public(keys.next(Some(&first)).unwrap());
        assert_ne!(first, second);
        let mut again = open();
        assert_eq!(public(again.find(&first).unwrap()), first);
        assert_eq!(public(again.next(Some(&first)).unwrap()), second);
        assert!(
            again
                .find(&public(Keys::in_memory().next(None).unwrap()))
                .is_none()
        );
        for name in [CURRENT, NEXT] {
            let mode = fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
        }
        fs::write(folder.path().join(NEXT), "garbage").unwrap();
        assert!(Keys::kept_in(folder.path()).is_err());
    }
}
