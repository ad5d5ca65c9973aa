//! A serving certificate as files, for programs beside us: `<folder>/<name>/{key.pem, cert-chain.pem, root-cert.pem}`.

use std::io;
use std::path::Path;

use ca_core::files::{PublishedFile, PublishedFolder};

use super::certificate::ServingCertificate;

/// The folder of one certificate, which only its owner may enter.
#[derive(Clone, Debug)]
pub(super) struct CertificateFolder(PublishedFolder);

impl CertificateFolder {
    pub(super) fn open(folder: &Path, name: &str) -> io::Result<Self> {
        PublishedFolder::open(folder.join(name), 0o700).map(Self)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Replaces the files all at once. **Blocks** on the disk.
    pub(super) fn replace(&self, certificate: &ServingCertificate) -> io::Result<()> {
        let ServingCertificate { key, chain, roots } = certificate;
        let file = |name, text| PublishedFile {
            name,
            mode: 0o600,
            content: str::as_bytes(text),
        };
        self.0.replace(&[
            file("key.pem", &key.to_pkcs8_pem()),
            file("cert-chain.pem", &chain.to_pem()),
            file("root-cert.pem", roots.to_pem()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use ca_core::testing::{TestCa, now};
    use ca_core::{CertificateChain, PrivateKey, SigningKey as _, TrustBundle};

    use super::*;

    #[test]
    fn key_chain_and_roots_belong_together_and_only_the_owner_may_read_them() {
        let (base, ca) = (tempfile::tempdir().unwrap(), TestCa::new("td"));
        let folder = CertificateFolder::open(&base.path().join("serving"), "grpc").unwrap();
        let names = ["localhost".parse().unwrap()];
        let day = Duration::from_secs(24 * 3600);
        let made = ServingCertificate::issue(&ca.authority(), &names, day, now()).unwrap();
        folder.replace(&made).unwrap();
        let read = |name: &str| {
            let path = base.path().join("serving/grpc").join(name);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
            fs::read(path).unwrap()
        };
        let key = PrivateKey::from_pem(&read("key.pem")).unwrap();
        let chain = CertificateChain::from_pem(&read("cert-chain.pem")).unwrap();
        assert_eq!(key.public_key(), chain.leaf().public_key());
        let roots = TrustBundle::from_pem(&read("root-cert.pem")).unwrap();
        chain.verify(&roots, now()).unwrap();
        let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
