//! One task for each serving certificate: made before anything listens, replaced while the listener is open.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ca_core::files::{self, FollowError, FollowedFiles, Refusal};
use ca_core::{Backoff, RenewalPolicy, SignError, TrustBundle, random_unit};
use time::OffsetDateTime;

use super::certificate::ServingCertificate;
use super::folder::CertificateFolder;
use super::handshakes::Handshakes;
use super::issuer::ServingIssuer;
use super::plan::{Entry, Source};
use super::status::{ServingStatus, StatusCell};
use super::tls::{CurrentTls, TlsError};
use crate::mesh_roots::RootChanges;
use crate::report::shown;

/// Keeps one certificate: by lifetime, and at once when the CA's bundle or the files change. What is in use stays in use until
/// its successor is there.
#[derive(Debug)]
pub(crate) struct Keeper {
    entry: Entry,
    issuer: ServingIssuer,
    // From before the first certificate was made, so that no change is missed.
    root_changes: RootChanges,
    file_changes: Option<FileChanges>,

    tls: CurrentTls,
    certificate: Option<ServingCertificate>,
    status: StatusCell,
    renewal: Timer,
    output: Option<(CertificateFolder, Timer)>,
}

impl Keeper {
    /// Makes the certificate and writes it, where it is to be written. **Blocks** on the disk.
    pub(super) async fn start(
        entry: Entry,
        issuer: ServingIssuer,
        now: OffsetDateTime,
    ) -> Result<Self, ServingError> {
        let root_changes = issuer.roots().subscribe();
        let (file_changes, certificate) = match &entry.source {
            Source::Files(files) => {
                let changes = FileChanges::of(files);
                (Some(changes), Some((*files.current()).clone()))
            }
            Source::Issued { names } => {
                let lifetime = entry.lifetime;
                (None, Some(issuer.issue(names, lifetime, now).await?))
            }
            Source::Nowhere => (None, None),
        };
        let mut output = None;
        if let (Some(base), Some(certificate)) = (&entry.folder, &certificate) {
            let failed = |cause| ServingError::Folder {
                path: base.join(&*entry.name),
                cause,
            };
            let folder = CertificateFolder::open(base, &entry.name).map_err(failed)?;
            folder.replace(certificate).map_err(failed)?;
            output = Some((folder, Timer::new()));
        }
        let roots = client_roots(&entry, &issuer, certificate.as_ref());
        let config = entry.dialect.with(certificate.as_ref(), roots.as_ref())?;
        let handshakes = Handshakes::of(&entry.name);
        let status = ServingStatus {
            name: Arc::clone(&entry.name),
            provider: entry.source.name(&issuer),
            certificate: None,
            next_renewal: None,
            last_error: match entry.source {
                Source::Nowhere => {
                    Some("there is no certificate: every connection is refused".into())
                }
                Source::Issued { .. } | Source::Files(_) => None,
            },
            failures: 0,
            handshakes: handshakes.clone(),
        };
        let mut keeper = Self {
            entry,
            issuer,
            root_changes,
            file_changes,
            tls: CurrentTls::new(config, handshakes),
            certificate,
            status: StatusCell::new(status),
            renewal: Timer::new(),
            output,
        };
        keeper.plan_renewal(now);
        keeper.show();
        Ok(keeper)
    }

    pub(super) fn tls(&self) -> CurrentTls {
        self.tls.clone()
    }

    pub(super) fn status(&self) -> StatusCell {
        self.status.clone()
    }

    /// Goes on for ever.
    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: it waits for the real clock"
    )]
    pub(crate) async fn run(mut self) {
        loop {
            let now = OffsetDateTime::now_utc();
            if self.renewal.is_due(now) {
                self.refresh(now).await;
            }
            self.forget_refusal_that_is_over();
            if self
                .output
                .as_ref()
                .is_some_and(|(_, retry)| retry.is_due(now))
            {
                self.write(now).await;
            }
            let output = self.output.as_ref().and_then(|(_, retry)| retry.at);
            let due = [self.renewal.at, output].into_iter().flatten().min();
            // Never asleep for long: a clock that jumps, or a machine that was suspended, is noticed.
            let left = due.map_or(LONGEST_WAIT, |due| {
                Duration::try_from(due - OffsetDateTime::now_utc()).unwrap_or_default()
            });
            tokio::select! {
                _ = self.root_changes.changed() => self.refresh(OffsetDateTime::now_utc()).await,
                event = FileChanges::next(self.file_changes.as_mut()) => match event {
                    FileEvent::Changed(certificate) => {
                        let certificate = Some((*certificate).clone());
                        self.take(certificate, OffsetDateTime::now_utc()).await;
                    }
                    FileEvent::Refused(refusal) => self.failed("files not taken", &refusal.error),
                },
                () = tokio::time::sleep(left.min(LONGEST_WAIT)) => {}
            }
        }
    }

    /// By lifetime, after a failure, and when the CA's bundle has changed: then the roots for clients are others too.
    async fn refresh(&mut self, now: OffsetDateTime) {
        let certificate = match &self.entry.source {
            Source::Issued { names } => {
                let lifetime = self.entry.lifetime;
                match self.issuer.issue(names, lifetime, now).await {
                    Ok(certificate) => Some(certificate),
                    Err(error) => {
                        self.renewal.retry(now);
                        return self.failed("certificate not renewed", &error);
                    }
                }
            }
            Source::Files(files) => Some((*files.current()).clone()),
            Source::Nowhere => None,
        };
        self.take(certificate, now).await;
    }

    /// The listener first: it must not depend on a disk that is full.
    async fn take(&mut self, certificate: Option<ServingCertificate>, now: OffsetDateTime) {
        if let Err(error) = self.configure(certificate.as_ref()) {
            self.renewal.retry(now);
            return self.failed("certificate not taken", &error);
        }
        self.certificate = certificate;
        self.plan_renewal(now);
        self.succeeded();
        if let Some(ServingCertificate { chain, .. }) = &self.certificate {
            let (serial, not_after) = (chain.leaf().serial(), chain.leaf().not_after());
            let not_after = shown(not_after);
            tracing::info!(
                name = &*self.entry.name,
                serial,
                not_after,
                "serving certificate in use"
            );
        }
        self.write(now).await;
    }

    fn configure(&self, certificate: Option<&ServingCertificate>) -> Result<(), TlsError> {
        let roots = client_roots(&self.entry, &self.issuer, certificate);
        self.tls
            .set(self.entry.dialect.with(certificate, roots.as_ref())?);
        Ok(())
    }

    async fn write(&mut self, now: OffsetDateTime) {
        let (Some((folder, _)), Some(certificate)) = (&self.output, self.certificate.clone())
        else {
            return;
        };
        let folder = folder.clone();
        let written = tokio::task::spawn_blocking(move || {
            folder
                .replace(&certificate)
                .map_err(|error| format!("{}: {error}", folder.path().display()))
        });
        // A panic of the writer is a failure to write.
        let written = written.await.unwrap_or_else(|error| Err(error.to_string()));
        let Some((_, retry)) = &mut self.output else {
            return;
        };
        match written {
            Ok(()) => {
                let was_failing = retry.at.is_some();
                retry.done();
                if was_failing {
                    self.succeeded();
                }
            }
            Err(error) => {
                retry.retry(now);
                self.failed("certificate not written", &error);
            }
        }
    }

    fn plan_renewal(&mut self, now: OffsetDateTime) {
        self.renewal.done();
        let (Source::Issued { .. }, Some(certificate)) = (&self.entry.source, &self.certificate)
        else {
            return;
        };
        let leaf = certificate.chain.leaf();
        let at =
            RenewalPolicy::default().renew_at(leaf.not_before(), leaf.not_after(), random_unit());
        // A CA that is about to end gives certificates that are due at once: not more often than this.
        self.renewal.at = Some(at.max(now + FIRST_RETRY));
    }

    /// Files that are again what they were are no news to those who follow them.
    fn forget_refusal_that_is_over(&self) {
        if let Source::Files(files) = &self.entry.source
            && self.renewal.at.is_none()
            && self
                .output
                .as_ref()
                .is_none_or(|(_, retry)| retry.at.is_none())
            && !files.status().is_refused
            && self.status.current().last_error.is_some()
        {
            self.succeeded();
        }
    }

    fn succeeded(&self) {
        if !matches!(self.entry.source, Source::Nowhere) {
            self.status.update(|status| status.last_error = None);
        }
        self.show();
    }

    fn failed(&self, what: &str, error: &dyn std::fmt::Display) {
        tracing::error!(
            name = &*self.entry.name,
            retry = self.renewal.at.map(shown),
            reason = error.to_string(),
            "serving {what}"
        );
        self.status.update(|status| {
            status.last_error = Some(format!("{what}: {error}").into());
            status.failures += 1;
        });
        self.show();
    }

    fn show(&self) {
        self.status.update(|status| {
            let certificate = self.certificate.as_ref();
            status.certificate = certificate.map(|shown| shown.chain.leaf().clone());
            status.next_renewal = self.renewal.at;
        });
    }
}

/// Who is believed by certificate: members of the mesh, and whom the operator's CA file names. `None` where nobody is asked.
fn client_roots(
    entry: &Entry,
    issuer: &ServingIssuer,
    certificate: Option<&ServingCertificate>,
) -> Option<TrustBundle> {
    if !entry.verifies_clients {
        return None;
    }
    let mesh = issuer.roots().current();
    Some(match (&entry.source, certificate) {
        (Source::Files(_), Some(certificate)) => mesh.merge(&certificate.roots),
        _ => mesh,
    })
}

/// A moment to act, and how long to wait after a failure.
#[derive(Debug)]
struct Timer {
    at: Option<OffsetDateTime>,
    backoff: Backoff,
}

impl Timer {
    fn new() -> Self {
        Self {
            at: None,
            backoff: Backoff::new(FIRST_RETRY, LONGEST_WAIT),
        }
    }

    fn is_due(&self, now: OffsetDateTime) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    fn retry(&mut self, now: OffsetDateTime) {
        self.at = Some(now + self.backoff.next(random_unit()));
    }

    fn done(&mut self) {
        self.at = None;
        self.backoff.reset();
    }
}

/// Publications and refusals, each of which is waited for.
#[derive(Debug)]
struct FileChanges {
    taken: files::Subscription<ServingCertificate>,
    refused: files::Subscription<ServingCertificate>,
}

enum FileEvent {
    Changed(Arc<ServingCertificate>),
    Refused(Refusal),
}

impl FileChanges {
    fn of(files: &FollowedFiles<ServingCertificate>) -> Self {
        Self {
            taken: files.subscribe(),
            refused: files.subscribe(),
        }
    }

    /// Never, where no files are followed.
    async fn next(changes: Option<&mut Self>) -> FileEvent {
        let Some(Self { taken, refused }) = changes else {
            return std::future::pending().await;
        };
        tokio::select! {
            certificate = taken.changed() => FileEvent::Changed(certificate),
            refusal = refused.refused() => FileEvent::Refused(refusal),
        }
    }
}

/// Why a listener has no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServingError {
    /// Not signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operator's files are not one.
    #[error("{0}")]
    Files(#[from] FollowError),
    /// Not written.
    #[error("cannot write {}: {cause}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
}

/// Also the shortest time between two certificates.
pub(crate) const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
