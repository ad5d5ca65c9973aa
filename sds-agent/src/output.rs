//! The secret as files, for programs that do not speak SDS.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ca_core::{
    Backoff,
    files::{PublishedFile, PublishedFolder},
    random_unit,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    metrics::Metrics,
    secrets::{Secrets, Workload},
};

/// A folder that follows the current secret.
#[derive(Clone, Debug)]
pub(crate) struct OutputFolder(PublishedFolder);

impl OutputFolder {
    /// Makes the folder if need be, and proves that it can be written.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub(crate) fn open(path: &Path) -> Result<Self, OutputError> {
        // Its mode is the operator's choice: programs that run as somebody else may read chain and roots.
        PublishedFolder::open(path, 0o777)
            .map(Self)
            .map_err(|error| OutputError::Folder(path.to_owned(), error))
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
                        tracing::warn!(folder = %self.0.path().display(), %error, "cannot write the secret");
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
        let file = |name, mode, text| PublishedFile {
            name,
            mode,
            content: str::as_bytes(text),
        };
        self.0.replace(&[
            file("key.pem", 0o600, secret.key_pem()),
            file("cert-chain.pem", 0o644, &secret.chain_pem()),
            file("root-cert.pem", 0o644, roots.to_pem()),
        ])
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
