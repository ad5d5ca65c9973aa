//! The roots as a file that anybody may read, for agents on this machine and for those who set them up.

use std::io;
use std::path::{Path, PathBuf};

use ca_core::{BundleStore, KeyCertBundle};

use crate::private_file::{self, Readers};

pub(crate) fn write(path: &Path, bundle: &KeyCertBundle) -> io::Result<()> {
    private_file::write(path, bundle.roots().to_pem().as_bytes(), Readers::Everybody)
}

/// Writes the file anew whenever the roots change.
pub(crate) async fn keep_current(path: PathBuf, bundles: BundleStore) {
    let mut changes = bundles.subscribe();
    let mut written = bundles.current().roots().clone();
    loop {
        let bundle = changes.changed().await;
        if *bundle.roots() == written {
            continue;
        }
        match write(&path, &bundle) {
            Ok(()) => written = bundle.roots().clone(),
            Err(error) => tracing::error!(path = %path.display(), "roots not written: {error}"),
        }
    }
}
