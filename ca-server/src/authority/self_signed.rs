//! The self-signed CA: its root is loaded from the store, or made once and kept there.

use ca_core::crypto::AWS_LC_RS;
use ca_core::{
    AuthorityState, AuthorityStore, CertificateChain, KeyError, KeyKind, PrivateKey, RootError,
    RootParams, StoreError, Stored, TrustBundle, TrustError,
};
use time::OffsetDateTime;

/// The CA in the store, and whether it has just been made.
pub(crate) async fn load_or_create(
    store: &dyn AuthorityStore,
    params: &RootParams,
    now: OffsetDateTime,
) -> Result<(Stored, Origin), SelfSignedError> {
    if let Some(stored) = store.load().await? {
        // Renewed as a root it would be one, which nobody trusts.
        if !stored.state.signing_certificate().is_self_issued() {
            return Err(SelfSignedError::Intermediate);
        }
        return Ok((stored, Origin::Loaded));
    }
    match store.save(create(params, now)?, None).await {
        Ok(stored) => Ok((stored, Origin::Created)),
        // Another replica was quicker: its root is the root.
        Err(StoreError::Conflict) => {
            let stored = store.load().await?.ok_or(StoreError::Conflict)?;
            Ok((stored, Origin::Loaded))
        }
        Err(error) => Err(error.into()),
    }
}

/// Where a root comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Loaded,
    Created,
}

fn create(params: &RootParams, now: OffsetDateTime) -> Result<AuthorityState, SelfSignedError> {
    let key = PrivateKey::generate_with(KeyKind::EcdsaP256, &AWS_LC_RS)?;
    let root = params.self_sign(&key, now)?;
    let roots = TrustBundle::new([root.clone()])?;
    Ok(AuthorityState::new(
        key,
        CertificateChain::new(root, []),
        roots,
    ))
}

/// Why there is no CA to start with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelfSignedError {
    /// The folder has been used below another CA.
    #[error(
        "the data folder holds a CA that another one has certified: name that with --upstream-ca-addr or --upstream-ca-drop, \
         or use another --data-dir"
    )]
    Intermediate,
    /// The state cannot be read or kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A new root cannot be made.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A new key cannot be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A new root is not one.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ca_core::DirectoryStore;
    use ca_core::testing::now;

    use super::*;

    #[tokio::test]
    async fn the_root_is_made_once_and_then_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let params = RootParams::new("cluster.local", Duration::from_secs(3600));
        let mut roots = Vec::new();
        for expected in [Origin::Created, Origin::Loaded, Origin::Loaded] {
            let store = DirectoryStore::open(folder.path()).unwrap();
            let (stored, origin) = load_or_create(&store, &params, now()).await.unwrap();
            assert_eq!(origin, expected);
            roots.push(stored.state.roots().clone());
        }
        assert!(roots.iter().all(|r| *r == roots[0]));
    }
}
