//! A client certificate from a folder that somebody provisioned, or that the agent itself writes.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use ca_core::{
    CertificateChain, CertificateError, KeyError, PrivateKey, SigningKey as _,
    files::{FileSet, ReadError},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::clock;

/// The folder: `cert-chain.pem` and `key.pem`. **Read again for each connection**, because a renewal
/// may have replaced both.
#[derive(Clone, Debug)]
pub(crate) struct ProvisionedFolder(PathBuf);

/// A certificate with its key, good for now.
pub(crate) struct ClientCertificate {
    chain: CertificateChain,
    key: PrivateKey,
}

impl ProvisionedFolder {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The certificate as it is now.
    ///
    /// # Errors
    ///
    /// When the files are not there, do not read or do not belong together, or the certificate is
    /// not valid at `now`.
    pub(crate) fn read(&self, now: OffsetDateTime) -> Result<ClientCertificate, NoCertificate> {
        let [chain, key] = ["cert-chain.pem", "key.pem"].map(|name| self.0.join(name));
        // As of one moment: the agent may be writing them.
        let files = FileSet::new().required(&chain).required(&key).read()?;
        let chain = CertificateChain::from_pem(files.require(&chain)?)
            .map_err(|error| NoCertificate::Chain(chain, error))?;
        let key = PrivateKey::from_pem(files.require(&key)?)
            .map_err(|error| NoCertificate::Key(key, error))?;
        let leaf = chain.leaf();
        if leaf.public_key() != key.public_key() {
            return Err(NoCertificate::Mismatch(self.0.clone()));
        }
        if !leaf.is_valid_at(now) {
            return Err(NoCertificate::NotValid {
                folder: self.0.clone(),
                from: leaf.not_before(),
                until: leaf.not_after(),
            });
        }
        Ok(ClientCertificate { chain, key })
    }
}

impl ClientCertificate {
    /// As TLS wants it.
    pub(crate) fn into_der(self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = self.chain.iter();
        let chain = chain.map(|certificate| certificate.der().to_vec().into());
        let key = PrivatePkcs8KeyDer::from(self.key.pkcs8_der().to_vec());
        (chain.collect(), key.into())
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("serial", &self.chain.leaf().serial())
            .finish_non_exhaustive()
    }
}

/// Why no client certificate is shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCertificate {
    /// Not there, or not readable.
    #[error(transparent)]
    Files(#[from] ReadError),
    /// The certificate does not read.
    #[error("{path}: {1}", path = .0.display())]
    Chain(PathBuf, #[source] CertificateError),
    /// The key does not read.
    #[error("{path}: {1}", path = .0.display())]
    Key(PathBuf, #[source] KeyError),
    /// Half of a replacement, perhaps.
    #[error("{}: the key does not belong to the certificate", .0.display())]
    Mismatch(PathBuf),
    /// A CA would refuse it.
    #[error(
        "the certificate in {} is valid from {from} until {until} only",
        folder.display(), from = clock::show(*from), until = clock::show(*until)
    )]
    NotValid {
        /// Where it lies.
        folder: PathBuf,
        /// When it begins.
        from: OffsetDateTime,
        /// When it ends.
        until: OffsetDateTime,
    },
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ca_core::testing::TestCa;

    use super::*;

    #[test]
    fn a_certificate_is_shown_if_it_is_whole_and_valid() {
        let ca = TestCa::new("cluster.local");
        let folder = tempfile::tempdir().unwrap();
        let file = ProvisionedFolder::new(folder.path());
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let now = clock::now();
        assert!(matches!(file.read(now), Err(NoCertificate::Files(_))));
        let (key, chain) = ca.workload("shop", "cart");
        write("cert-chain.pem", &chain.to_pem());
        write("key.pem", "junk");
        assert!(matches!(file.read(now), Err(NoCertificate::Key(..))));
        write("key.pem", &ca.workload("shop", "cart").0.to_pkcs8_pem());
        assert!(matches!(file.read(now), Err(NoCertificate::Mismatch(_))));
        write("key.pem", &key.to_pkcs8_pem());
        let certificate = file.read(now).unwrap();
        assert!(!format!("{certificate:?}").contains("PrivateKey"));
        assert_eq!(certificate.into_der().0.len(), chain.iter().count());
        let late = file.read(chain.leaf().not_after() + time::Duration::DAY);
        assert!(matches!(late, Err(NoCertificate::NotValid { .. })));
        write("cert-chain.pem", "junk");
        assert!(matches!(file.read(now), Err(NoCertificate::Chain(..))));
    }
}
