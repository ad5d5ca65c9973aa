//! The roots as a file that anybody may read, for agents on this machine and for those who set them up.

use std::io;
use std::path::{Path, PathBuf};

use ca_core::TrustBundle;

use crate::mesh_roots::MeshRoots;
use crate::private_file::{self, Readers};

pub(crate) fn write(path: &Path, roots: &TrustBundle) -> io::Result<()> {
    private_file::write(path, roots.to_pem().as_bytes(), Readers::Everybody)
}

/// Writes the file anew whenever the roots change.
pub(crate) async fn keep_current(path: PathBuf, mesh: MeshRoots) {
    let mut changes = mesh.subscribe();
    let mut written = None;
    loop {
        let roots = mesh.current();
        if written.as_ref() != Some(&roots) {
            match write(&path, &roots) {
                Ok(()) => written = Some(roots),
                Err(error) => tracing::error!(path = %path.display(), "roots not written: {error}"),
            }
        }
        changes.changed().await;
    }
}
