//! A serving certificate as files, for programs beside us.
//!
//! A reader must not see the key of one certificate beside the chain of another. The files of one certificate therefore
//! live in a folder of their own, and one rename moves everybody to the next. It is the layout of a volume that the kubelet
//! fills:
//!
//! ```text
//! <folder>/<name>/key.pem        -> ..data/key.pem
//! <folder>/<name>/cert-chain.pem -> ..data/cert-chain.pem
//! <folder>/<name>/root-cert.pem  -> ..data/root-cert.pem
//! <folder>/<name>/..data         -> ..certificate-7        (the rename replaces this link)
//! <folder>/<name>/..certificate-7/{key.pem, cert-chain.pem, root-cert.pem}
//! ```
//!
//! A reader that opens the flat names one after another can still be overtaken between two of them; one that opens
//! `..data` first cannot.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::certificate::ServingCertificate;

/// The folder of one certificate.
#[derive(Clone, Debug)]
pub(super) struct CertificateFolder(PathBuf);

impl CertificateFolder {
    /// Makes `folder/name`, which only its owner may enter.
    pub(super) fn open(folder: &Path, name: &str) -> io::Result<Self> {
        let folder = Self(folder.join(name));
        folder.make()?;
        // It may be from before, with another mode.
        fs::set_permissions(&folder.0, Permissions::from_mode(0o700))?;
        Ok(folder)
    }

    fn make(&self) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.0)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces the files all at once. **Blocks** on the disk.
    pub(super) fn replace(&self, certificate: &ServingCertificate) -> io::Result<()> {
        let ServingCertificate { key, chain, roots } = certificate;
        // Somebody may have cleared it away.
        self.make()?;
        let old = fs::read_link(self.0.join(CURRENT)).ok();
        let new = self.make_generation()?;
        let write = |name, text: &str| write_file(&self.0.join(&new).join(name), text);
        write(KEY, &key.to_pkcs8_pem())?;
        write(CHAIN, &chain.to_pem())?;
        write(ROOTS, roots.to_pem())?;
        self.link(Path::new(&new), CURRENT)?;
        for name in [KEY, CHAIN, ROOTS] {
            // After the first time this finds everything in place.
            let target = Path::new(CURRENT).join(name);
            if fs::read_link(self.0.join(name)).ok().as_ref() != Some(&target) {
                self.link(&target, name)?;
            }
        }
        self.remove_generations_except(&new, old.as_deref())
    }

    /// A folder with a name that was not there, so that nothing is ever written twice.
    fn make_generation(&self) -> io::Result<String> {
        let generations = self.generations()?;
        let newest = generations.iter().filter_map(|name| number(name)).max();
        let name = format!("{PREFIX}{}", newest.map_or(1, |newest| newest + 1));
        DirBuilder::new().mode(0o700).create(self.0.join(&name))?;
        Ok(name)
    }

    /// Makes `name` a link to `target` in one step, whatever it was before.
    fn link(&self, target: &Path, name: &str) -> io::Result<()> {
        let temporary = self.0.join(TEMPORARY);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(target, &temporary)?;
        fs::rename(temporary, self.0.join(name))
    }

    /// The one before the current one stays until the next time: a reader may just have opened it. All others go, also
    /// what a server that was killed half-way left behind.
    fn remove_generations_except(&self, current: &str, previous: Option<&Path>) -> io::Result<()> {
        for name in self.generations()? {
            if name != current && Some(Path::new(&name)) != previous {
                fs::remove_dir_all(self.0.join(name))?;
            }
        }
        Ok(())
    }

    fn generations(&self) -> io::Result<Vec<String>> {
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

fn number(generation: &str) -> Option<u64> {
    generation.strip_prefix(PREFIX)?.parse().ok()
}

fn write_file(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    // Before the rename that publishes it: a power cut must not leave links to empty files.
    file.sync_all()
}

/// The names that Istio gives them.
const KEY: &str = "key.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOTS: &str = "root-cert.pem";

/// The link that says which generation is current.
const CURRENT: &str = "..data";
const PREFIX: &str = "..certificate-";
/// Where links are made before a rename puts them into place.
const TEMPORARY: &str = "..link";

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use ca_core::testing::{TestCa, now};
    use ca_core::{CertificateChain, PrivateKey, SigningKey as _};

    use super::*;

    fn certificate(ca: &TestCa) -> ServingCertificate {
        let names = ["localhost".parse().unwrap()];
        let day = Duration::from_secs(24 * 3600);
        ServingCertificate::issue(&ca.authority(), &names, day, now()).unwrap()
    }

    #[test]
    fn only_the_owner_may_read_and_old_generations_and_leftovers_go() {
        let (base, ca) = (tempfile::tempdir().unwrap(), TestCa::new("td"));
        let path = base.path().join("serving/grpc");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(path.join("..certificate-7")).unwrap();
        symlink("nowhere", path.join("..link")).unwrap();
        let folder = CertificateFolder::open(&base.path().join("serving"), "grpc").unwrap();
        for _ in 0..3 {
            folder.replace(&certificate(&ca)).unwrap();
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("..data")), 0o700);
        for name in [KEY, CHAIN, ROOTS] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        assert_eq!(
            fs::read_link(path.join("..data")).unwrap(),
            Path::new("..certificate-10")
        );
        let mut generations = folder.generations().unwrap();
        generations.sort();
        assert_eq!(generations, ["..certificate-10", "..certificate-9"]);
    }

    #[test]
    fn a_reader_never_sees_a_key_beside_the_chain_of_another() {
        let (base, ca) = (tempfile::tempdir().unwrap(), TestCa::new("td"));
        let folder = CertificateFolder::open(base.path(), "grpc").unwrap();
        folder.replace(&certificate(&ca)).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut read = 0;
                while !stop.load(Ordering::Relaxed) || read == 0 {
                    let now = fs::canonicalize(folder.path().join(CURRENT)).unwrap();
                    // Gone when the writer was two generations ahead: to be read again.
                    let (Ok(key), Ok(chain)) = (fs::read(now.join(KEY)), fs::read(now.join(CHAIN)))
                    else {
                        continue;
                    };
                    let key = PrivateKey::from_pem(&key).unwrap();
                    let chain = CertificateChain::from_pem(&chain).unwrap();
                    assert_eq!(key.public_key(), chain.leaf().public_key());
                    read += 1;
                }
                read
            });
            for _ in 0..100 {
                folder.replace(&certificate(&ca)).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 0);
        });
    }
}
