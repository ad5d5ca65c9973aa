//! A certificate that an operator puts into files, and replaces there while we run.

use std::path::PathBuf;

use ca_core::crypto::AWS_LC_RS;
use ca_core::files::{FileSet, FollowError, FollowOptions, FollowedFiles, ReadError, Snapshot};
use ca_core::{
    CertificateChain, CertificateError, KeyError, PrivateKey, SigningKey as _, TrustBundle,
    TrustError,
};
use time::OffsetDateTime;

use super::certificate::ServingCertificate;

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    /// Roots that the certificate leads to. Certificates of clients that lead to them are accepted as well.
    pub(crate) roots: PathBuf,
    /// The certificate, and those between it and a root.
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl CertificateFiles {
    /// Reads them, which must be good, and follows them: what is not good later changes nothing.
    pub(super) fn follow(self) -> Result<FollowedFiles<ServingCertificate>, FollowError> {
        let set = FileSet::new()
            .required(&self.roots)
            .required(&self.chain)
            .required(&self.key);
        FollowedFiles::start(set, FollowOptions::new(), move |files, _| self.read(files))
    }

    /// Reads them once, for those who do not serve.
    pub(super) fn read_now(&self) -> Result<ServingCertificate, FollowError> {
        Ok((*self.clone().follow()?.current()).clone())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: files change now, and are judged as of now"
    )]
    fn read(&self, files: &Snapshot) -> Result<ServingCertificate, CertificateFilesError> {
        self.read_at(files, OffsetDateTime::now_utc())
    }

    fn read_at(
        &self,
        files: &Snapshot,
        now: OffsetDateTime,
    ) -> Result<ServingCertificate, CertificateFilesError> {
        let chain = CertificateChain::from_pem(files.require(&self.chain)?).map_err(|cause| {
            CertificateFilesError::Chain {
                path: self.chain.clone(),
                cause,
            }
        })?;
        let key = PrivateKey::from_pem_with(files.require(&self.key)?, &AWS_LC_RS);
        let key = key.map_err(|cause| CertificateFilesError::Key {
            path: self.key.clone(),
            cause,
        })?;
        let roots = TrustBundle::from_pem(files.require(&self.roots)?).map_err(|cause| {
            CertificateFilesError::Roots {
                path: self.roots.clone(),
                cause,
            }
        })?;
        // Also what a reader sees between the writing of one file and of the other.
        if key.public_key() != chain.leaf().public_key() {
            return Err(CertificateFilesError::Mixed {
                chain: self.chain.clone(),
                key: self.key.clone(),
            });
        }
        if !chain.leaf().is_valid_at(now) {
            return Err(CertificateFilesError::Dates {
                path: self.chain.clone(),
                from: chain.leaf().not_before(),
                until: chain.leaf().not_after(),
            });
        }
        Ok(ServingCertificate { key, chain, roots })
    }
}

/// Why files are not a certificate to serve with.
#[derive(Debug, thiserror::Error)]
enum CertificateFilesError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{}: {cause}", path.display())]
    Chain {
        path: PathBuf,
        cause: CertificateError,
    },
    #[error("{}: {cause}", path.display())]
    Key { path: PathBuf, cause: KeyError },
    #[error("{}: {cause}", path.display())]
    Roots { path: PathBuf, cause: TrustError },
    #[error("the key in {} is not that of the certificate in {}", key.display(), chain.display())]
    Mixed { chain: PathBuf, key: PathBuf },
    #[error("{}: the certificate is valid from {from} until {until} only", path.display())]
    Dates {
        path: PathBuf,
        from: OffsetDateTime,
        until: OffsetDateTime,
    },
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use ca_core::testing::{TestCa, now};

    use super::*;

    fn files(folder: &Path) -> CertificateFiles {
        CertificateFiles {
            roots: folder.join("ca.crt"),
            chain: folder.join("tls.crt"),
            key: folder.join("tls.key"),
        }
    }

    fn write(files: &CertificateFiles, ca: &TestCa) {
        let (key, chain) = identity(ca);
        fs::write(&files.roots, ca.root_pem()).unwrap();
        fs::write(&files.chain, chain.to_pem()).unwrap();
        fs::write(&files.key, key.to_pkcs8_pem().as_str()).unwrap();
    }

    fn identity(ca: &TestCa) -> (PrivateKey, CertificateChain) {
        let name = "localhost".parse().unwrap();
        ca.identity(&[name], Duration::from_secs(3600), now())
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (files, ca) = (files(folder.path()), TestCa::new("td"));
        let set = || {
            let set = FileSet::new().required(&files.roots);
            set.required(&files.chain).required(&files.key).read()
        };
        let refusal = || {
            let refused = files.read_at(&set().unwrap(), now()).unwrap_err();
            refused.to_string()
        };

        write(&files, &ca);
        assert!(files.read_at(&set().unwrap(), now()).is_ok());

        let late = now() + Duration::from_secs(3601);
        let refused = files.read_at(&set().unwrap(), late).unwrap_err();
        assert!(
            matches!(refused, CertificateFilesError::Dates { .. }),
            "{refused}"
        );

        fs::write(&files.key, identity(&ca).0.to_pkcs8_pem().as_str()).unwrap();
        let mixed = refusal();
        assert!(mixed.contains("is not that of the certificate"), "{mixed}");

        for path in [&files.key, &files.chain, &files.roots] {
            write(&files, &ca);
            fs::write(path, "junk").unwrap();
            let refused = refusal();
            let named = format!("{}: ", path.display());
            assert!(refused.starts_with(&named), "{refused}");
        }
    }
}
