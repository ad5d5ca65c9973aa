//! The secret as files, for programs that do not speak SDS.
//!
//! A reader must not see the key of one certificate beside the chain of another. The files of one
//! secret therefore live in a folder of their own, and one rename moves everybody to the next:
//!
//! ```text
//! key.pem        -> ..data/key.pem
//! cert-chain.pem -> ..data/cert-chain.pem
//! root-cert.pem  -> ..data/root-cert.pem
//! ..data         -> ..secret-7                (the rename replaces this link)
//! ..secret-7/{key.pem, cert-chain.pem, root-cert.pem}
//! ```
//!
//! It is the layout of a volume that the kubelet fills, so programs that watch those can watch this.
//! A reader that opens the flat names one after another can still be overtaken between two of them;
//! one that opens `..data` first cannot.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ca_core::{Backoff, random_unit};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    metrics::Metrics,
    secrets::{Secrets, Workload},
};

const KEY: &str = "key.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOTS: &str = "root-cert.pem";

/// The link that says which secret is current.
const CURRENT: &str = "..data";

/// What the folders of single secrets start with.
const FOLDER_PREFIX: &str = "..secret-";

/// Where links are made before a rename puts them into place.
const TEMPORARY: &str = "..link";

/// A folder that follows the current secret.
#[derive(Clone, Debug)]
pub(crate) struct OutputFolder(PathBuf);

impl OutputFolder {
    /// Makes the folder if need be, and proves that it can be written.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub(crate) fn open(path: &Path) -> Result<Self, OutputError> {
        let proof = path.join(TEMPORARY);
        fs::create_dir_all(path)
            .and_then(|()| remove_if_there(&proof))
            .and_then(|()| symlink(CURRENT, &proof))
            .and_then(|()| fs::remove_file(&proof))
            .map_err(|error| OutputError::Folder(path.to_owned(), error))?;
        Ok(Self(path.to_owned()))
    }

    /// Writes each new secret until `stop`. A write that fails is repeated until it succeeds: the
    /// next secret may be half a day away.
    pub(crate) async fn follow(
        self,
        mut secrets: Secrets,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let mut retry = None;
            if let Some(workload) = secrets.workload_at(clock::now()) {
                match self.write(workload).await {
                    Ok(()) => backoff.reset(),
                    Err(error) => {
                        metrics.output_failures.inc();
                        tracing::warn!(folder = %self.0.display(), %error, "cannot write the secret");
                        retry = Some(backoff.next(random_unit()));
                    }
                }
            }
            let again = async {
                match retry {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = secrets.workload_changed() => if changed.is_err() {
                    return;
                },
                () = again => {}
            }
        }
    }

    async fn write(&self, workload: Workload) -> io::Result<()> {
        let folder = self.clone();
        // Off the one thread that also serves Envoy: syncing a disk can take long.
        tokio::task::spawn_blocking(move || folder.replace(&workload)).await?
    }

    fn replace(&self, workload: &Workload) -> io::Result<()> {
        let Workload { secret, roots } = workload;
        let old = fs::read_link(self.0.join(CURRENT)).ok();
        let new = self.make_folder()?;
        let write = |name, mode, text: &str| write_file(&self.0.join(&new).join(name), mode, text);
        write(KEY, 0o600, secret.key_pem())?;
        write(CHAIN, 0o644, &secret.chain_pem())?;
        write(ROOTS, 0o644, roots.to_pem())?;
        self.link(Path::new(&new), CURRENT)?;
        for name in [KEY, CHAIN, ROOTS] {
            // After the first secret this finds everything in place.
            let target = Path::new(CURRENT).join(name);
            if fs::read_link(self.0.join(name)).ok().as_ref() != Some(&target) {
                self.link(&target, name)?;
            }
        }
        // Also what an agent that was killed half-way left behind.
        self.remove_folders_except(&new, old.as_deref())
    }

    /// A folder with a name that was not there, so that nothing is ever written twice.
    fn make_folder(&self) -> io::Result<String> {
        let newest = self
            .folders()?
            .iter()
            .filter_map(|name| number(name))
            .max()
            .unwrap_or(0);
        let name = format!("{FOLDER_PREFIX}{}", newest + 1);
        fs::create_dir(self.0.join(&name))?;
        Ok(name)
    }

    /// Makes `name` a link to `target` in one step, whatever it was before.
    fn link(&self, target: &Path, name: &str) -> io::Result<()> {
        let temporary = self.0.join(TEMPORARY);
        remove_if_there(&temporary)?;
        symlink(target, &temporary)?;
        fs::rename(temporary, self.0.join(name))
    }

    /// The folder before the current one stays until the next time: a reader may just have opened it.
    fn remove_folders_except(&self, current: &str, previous: Option<&Path>) -> io::Result<()> {
        for name in self.folders()? {
            if name != current && Some(Path::new(&name)) != previous {
                fs::remove_dir_all(self.0.join(name))?;
            }
        }
        Ok(())
    }

    fn folders(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if number(&name).is_some() {
                names.push(name);
            }
        }
        Ok(names)
    }
}

fn number(folder: &str) -> Option<u64> {
    folder.strip_prefix(FOLDER_PREFIX)?.parse().ok()
}

fn write_file(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    // Before the rename that publishes it: a power cut must not leave links to empty files.
    file.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Why no files can be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Missing permissions, most likely.
    #[error("cannot write to the output folder {}", .0.display())]
    Folder(PathBuf, #[source] io::Error),
}

#[cfg(test)]
mod tests;
