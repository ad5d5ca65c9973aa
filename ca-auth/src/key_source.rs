//! The seam for places that issuer keys come from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ca_core::BoxFuture;

use crate::issuer_keys::IssuerKeys;

/// Keeps the keys of one issuer current: keys that never change, a file, a place on the network.
pub trait KeySource: Send + Sync + fmt::Debug {
    /// The keys to use now.
    fn current(&self) -> BoxFuture<'_, Result<IssuerKeys, KeysUnavailable>>;

    /// Asked when a token cannot be verified with `than` because its key is not among them: keys that
    /// are newer, or `None` when there are none. Whoever has a network behind it limits how often that
    /// is asked, because **anybody can make up a token with an unknown key**.
    fn newer<'a>(
        &'a self,
        than: &'a IssuerKeys,
    ) -> BoxFuture<'a, Result<Option<IssuerKeys>, KeysUnavailable>>;

    /// How it goes. Cheap: nobody is asked.
    fn status(&self) -> KeyStatus;
}

/// How it goes with the keys of an issuer, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyStatus {
    /// Where the keys come from, if they come from somewhere.
    pub place: Option<Box<str>>,
    /// How long ago they were read; `None` for keys that are not read again, and as long as there are none.
    pub age: Option<Duration>,
    /// [`IssuerKeys::fingerprints`].
    pub fingerprints: Vec<String>,
    /// Why the last attempt to read them failed, if it did.
    pub failure: Option<Box<str>>,
}

/// The issuer cannot be asked, and what it said before is too old. Trying again may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct KeysUnavailable {
    reason: Box<str>,
}

impl KeysUnavailable {
    /// With a sentence for the log.
    pub fn new(reason: impl Into<Box<str>>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// Keys that somebody else looks at as well.
impl<T: KeySource + ?Sized> KeySource for Arc<T> {
    fn current(&self) -> BoxFuture<'_, Result<IssuerKeys, KeysUnavailable>> {
        (**self).current()
    }

    fn newer<'a>(
        &'a self,
        than: &'a IssuerKeys,
    ) -> BoxFuture<'a, Result<Option<IssuerKeys>, KeysUnavailable>> {
        (**self).newer(than)
    }

    fn status(&self) -> KeyStatus {
        (**self).status()
    }
}

/// Keys that never change.
impl KeySource for IssuerKeys {
    fn current(&self) -> BoxFuture<'_, Result<IssuerKeys, KeysUnavailable>> {
        Box::pin(std::future::ready(Ok(self.clone())))
    }

    fn newer<'a>(
        &'a self,
        _than: &'a IssuerKeys,
    ) -> BoxFuture<'a, Result<Option<IssuerKeys>, KeysUnavailable>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn status(&self) -> KeyStatus {
        KeyStatus {
            place: None,
            age: None,
            fingerprints: self.fingerprints().collect(),
            failure: None,
        }
    }
}

/// Keys in a file that may be replaced while we run: always what it held last that could be read.
#[cfg(feature = "files")]
impl KeySource for ca_core::files::FollowedFiles<IssuerKeys> {
    fn current(&self) -> BoxFuture<'_, Result<IssuerKeys, KeysUnavailable>> {
        let keys = IssuerKeys::clone(&ca_core::files::FollowedFiles::current(self));
        Box::pin(std::future::ready(Ok(keys)))
    }

    fn newer<'a>(
        &'a self,
        than: &'a IssuerKeys,
    ) -> BoxFuture<'a, Result<Option<IssuerKeys>, KeysUnavailable>> {
        // The system tells of changes; there is nobody to ask. But one may have come in between.
        let keys = IssuerKeys::clone(&ca_core::files::FollowedFiles::current(self));
        let newer = (!keys.is_same(than)).then_some(keys);
        Box::pin(std::future::ready(Ok(newer)))
    }

    fn status(&self) -> KeyStatus {
        let status = ca_core::files::FollowedFiles::status(self);
        let refusal = status.last_refusal.as_ref();
        KeyStatus {
            place: Some("file".into()),
            age: status.published_at.map(|at| at.elapsed()),
            fingerprints: ca_core::files::FollowedFiles::current(self)
                .fingerprints()
                .collect(),
            failure: refusal
                .filter(|_| status.is_refused)
                .map(|refusal| refusal.error.to_string().into()),
        }
    }
}

#[cfg(all(test, feature = "files"))]
mod tests {
    use ca_core::files::{FileSet, FollowOptions, FollowedFiles};
    use ca_core::{KeyKind, PrivateKey, SigningKey as _};

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_gives_newer_keys_and_a_bad_one_changes_nothing() {
        let key = || {
            let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
            pem::encode(&pem::Pem::new("PUBLIC KEY", key.public_key().spki_der()))
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.pem");
        std::fs::write(&path, key()).unwrap();
        let parsed = path.clone();
        let followed = FollowedFiles::start(
            FileSet::new().required(&path),
            FollowOptions::new(),
            move |files, _| {
                let content = files.require(&parsed)?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(IssuerKeys::parse(content)?)
            },
        )
        .unwrap();
        let mut changes = followed.subscribe();
        let source: &dyn KeySource = &followed;
        let first = source.current().await.unwrap();
        assert!(source.newer(&first).await.unwrap().is_none());

        std::fs::write(&path, "half of a fi").unwrap();
        changes.refused().await;
        assert!(source.current().await.unwrap().is_same(&first));
        let status = source.status();
        assert!(
            status
                .failure
                .unwrap()
                .contains("neither a JWK Set nor PEM")
        );
        assert_eq!(
            status.fingerprints,
            first.fingerprints().collect::<Vec<_>>()
        );

        std::fs::write(&path, key()).unwrap();
        changes.changed().await;
        let newer = source.newer(&first).await.unwrap().unwrap();
        assert!(!newer.is_same(&first));
        assert!(source.current().await.unwrap().is_same(&newer));
        assert_eq!(source.status().failure, None);
    }
}
