//! The folder through which a CA that cannot be asked certifies this one: we put `ca.csr`, somebody puts
//! `ca-cert.pem`, `root-cert.pem` and perhaps `cert-chain.pem`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ca_core::files::{FileSet, FollowOptions, FollowedFiles, Snapshot, Subscription};
use ca_core::{Certificate, CertificateChain, TrustBundle};

use super::pending::FileError;
use crate::private_file::{self, Readers};

/// What lies in the folder. That it reads is all that is known of it.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    pub(super) chain: Option<CertificateChain>,
    pub(super) roots: Option<TrustBundle>,
}

/// The folder, followed.
#[derive(Debug)]
pub(super) struct DropFolder {
    folder: PathBuf,
    files: FollowedFiles<Dropped>,
    values: Subscription<Dropped>,
    refusals: Subscription<Dropped>,
}

impl DropFolder {
    pub(super) fn follow(folder: PathBuf) -> Result<Self, super::OpenError> {
        std::fs::create_dir_all(&folder).map_err(|cause| FileError::io(&folder, cause))?;
        let set = [CERTIFICATE, CHAIN, ROOTS]
            .iter()
            .fold(FileSet::new(), |set, name| set.optional(folder.join(name)));
        let owned = folder.clone();
        let parse = move |files: &Snapshot, _: Option<&Dropped>| read(&owned, files);
        let files =
            FollowedFiles::start_with(Dropped::default(), set, FollowOptions::new(), parse)?;
        Ok(Self {
            folder,
            values: files.subscribe(),
            refusals: files.subscribe(),
            files,
        })
    }

    pub(super) fn shown(&self) -> String {
        self.folder.display().to_string()
    }

    /// Which file somebody is to put there, and for which.
    pub(super) fn wanted(&self) -> String {
        let (certificate, request) = (self.path(CERTIFICATE), self.path(REQUEST));
        format!("{} for {}", certificate.display(), request.display())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What lies there now, or why it does not read.
    pub(super) fn current(&self) -> Result<Arc<Dropped>, String> {
        let status = self.files.status();
        match status.last_refusal.as_ref().filter(|_| status.is_refused) {
            Some(refusal) => Err(refusal.error.to_string()),
            None => Ok(self.files.current()),
        }
    }

    /// The next that reads, or the next that does not.
    pub(super) async fn changed(&mut self) -> Result<Arc<Dropped>, String> {
        tokio::select! {
            dropped = self.values.changed() => Ok(dropped),
            refusal = self.refusals.refused() => Err(refusal.error.to_string()),
        }
    }

    pub(super) fn put_request(&self, pem: &str) -> Result<(), FileError> {
        let path = self.path(REQUEST);
        private_file::write(&path, pem.as_bytes(), Readers::Everybody)
            .map_err(|cause| FileError::io(&path, cause))
    }

    /// It is answered. One that stays would only be answered again.
    pub(super) fn take_request_away(&self) {
        let path = self.path(REQUEST);
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), "not removed: {error}");
        }
    }
}

fn read(folder: &Path, files: &Snapshot) -> Result<Dropped, Box<dyn Error + Send + Sync>> {
    let at = |name: &str, cause: &dyn Error| format!("{}: {cause}", folder.join(name).display());
    let all = |name: &str| -> Result<Vec<Certificate>, Box<dyn Error + Send + Sync>> {
        match files.get(folder.join(name)) {
            // An empty chain is how some tools write none.
            Some(text) if name == CHAIN && text.trim_ascii().is_empty() => Ok(Vec::new()),
            Some(text) => Ok(Certificate::all_from_pem(text).map_err(|e| at(name, &e))?),
            None => Ok(Vec::new()),
        }
    };
    let mut above = all(CERTIFICATE)?.into_iter();
    let chain = match above.next() {
        Some(certificate) => {
            let more: Vec<_> = above.chain(all(CHAIN)?).collect();
            Some(CertificateChain::new(certificate, more))
        }
        None => None,
    };
    let roots = files.get(folder.join(ROOTS));
    let roots = roots.map(|text| TrustBundle::from_pem(text).map_err(|e| at(ROOTS, &e)));
    Ok(Dropped {
        chain,
        roots: roots.transpose()?,
    })
}

const REQUEST: &str = "ca.csr";
const CERTIFICATE: &str = "ca-cert.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOTS: &str = "root-cert.pem";
