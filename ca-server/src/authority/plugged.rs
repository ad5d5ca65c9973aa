//! A CA whose key an operator puts into a folder, and replaces there while we run.

use std::error::Error;
use std::path::{Path, PathBuf};

use ca_core::crypto::AWS_LC_RS;
use ca_core::files::{FileSet, FollowError, FollowOptions, FollowedFiles, Snapshot};
use ca_core::{BundlePem, BundleStore, CaLayout, KeyCertBundle};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::in_cluster;
use crate::report::shown;

/// As [`follow`]; `None` also where the files are a Secret in which we keep our own CA, if `we_keep_ours_there`.
pub(crate) fn follow_operators(
    folder: &Path,
    we_keep_ours_there: bool,
) -> Result<Option<FollowedFiles<KeyCertBundle>>, PluggedError> {
    if we_keep_ours_there && in_cluster::is_own(folder) {
        return Ok(None);
    }
    follow(folder)
}

/// Follows the CA files of `folder`, in either layout; `None` when there are none, which asks for a self-signed CA.
fn follow(folder: &Path) -> Result<Option<FollowedFiles<KeyCertBundle>>, PluggedError> {
    let at = |cause: Box<dyn Error + Send + Sync>| PluggedError::Files {
        folder: folder.into(),
        cause,
    };
    let files = CaLayout::FILES
        .iter()
        .fold(FileSet::new(), |set, name| set.optional(folder.join(name)));
    let present = files.read().map_err(|e| at(e.into()))?;
    if collect(folder, &present)
        .map_err(|e| at(e.into()))?
        .is_none()
    {
        return Ok(None);
    }
    let owned = folder.to_owned();
    let parse = move |files: &Snapshot, old: Option<&KeyCertBundle>| read(&owned, files, old);
    let followed = FollowedFiles::start(files, FollowOptions::new(), parse);
    followed.map(Some).map_err(|cause| PluggedError::Start {
        folder: folder.into(),
        cause,
    })
}

/// Makes each new content of the files the bundle to sign with.
pub(crate) async fn keep_current(files: FollowedFiles<KeyCertBundle>, bundles: BundleStore) {
    let mut changes = files.subscribe();
    // Looked at before the first wait: the files may have changed since the server was built.
    let mut bundle = files.current();
    loop {
        use_from_now_on(&bundle, &bundles);
        bundle = changes.changed().await;
    }
}

/// Says whether it is another one than is in use.
pub(super) fn use_from_now_on(bundle: &KeyCertBundle, bundles: &BundleStore) -> bool {
    if is_same(bundle, &bundles.current()) {
        return false;
    }
    let signing = bundle.signing_certificate();
    tracing::info!(
        serial = signing.serial(),
        not_after = shown(signing.not_after()),
        roots = bundle.roots().certificates().len(),
        "the CA's files have changed: in use from now on"
    );
    bundles.replace(bundle.clone());
    true
}

fn is_same(a: &KeyCertBundle, b: &KeyCertBundle) -> bool {
    a.chain() == b.chain() && a.roots() == b.roots() && a.revocation_lists() == b.revocation_lists()
}

#[expect(
    clippy::disallowed_methods,
    reason = "an edge: files change now, and are judged as of now"
)]
fn read(
    folder: &Path,
    files: &Snapshot,
    old: Option<&KeyCertBundle>,
) -> Result<KeyCertBundle, Box<dyn Error + Send + Sync>> {
    let Some((_, parts)) = collect(folder, files)? else {
        return Err("all files of the CA are gone".into());
    };
    successor(folder, &parts, old, OffsetDateTime::now_utc())
}

/// The bundle of `parts`, which lie in `place`, if it may take the place of `old`.
pub(super) fn successor(
    place: &Path,
    parts: &BundlePem,
    old: Option<&KeyCertBundle>,
    now: OffsetDateTime,
) -> Result<KeyCertBundle, Box<dyn Error + Send + Sync>> {
    let bundle = KeyCertBundle::from_pem(parts, &AWS_LC_RS, now)?;
    if let Some(old) = old {
        old.roots().check_successor(bundle.roots())?;
    }
    // A list that does not suit must not keep a new key from being used; the lists so far stay.
    let lists = parts
        .revocation_lists(&bundle, &AWS_LC_RS)
        .unwrap_or_else(|error| {
            tracing::error!(place = %place.display(), "revocation lists not taken: {error}");
            old.and_then(|old| old.revocation_lists().cloned())
        });
    Ok(bundle.with_revocation_lists(lists))
}

fn collect(
    folder: &Path,
    files: &Snapshot,
) -> Result<Option<(CaLayout, BundlePem)>, ca_core::IncompleteCa> {
    CaLayout::collect(|name| {
        files
            .get(folder.join(name))
            .map(|text| Zeroizing::new(text.to_vec()))
    })
}

/// Why the files are not a CA.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluggedError {
    /// They cannot be read, or some are missing.
    #[error("CA files in {}: {cause}", folder.display())]
    Files {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// They do not make a CA.
    #[error("CA files in {}: {cause}", folder.display())]
    Start {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        cause: FollowError,
    },
}
