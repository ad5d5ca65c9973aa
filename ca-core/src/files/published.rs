//! A folder of files that is replaced as a whole.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Files for others to read, such as a key beside its certificate: **nobody sees the key of one beside the certificate of
/// another.** The files of one generation live in a folder of their own, and one rename moves everybody to the next. It
/// is the layout of a volume that the kubelet fills, so whatever follows those can follow this, and
/// [`FollowedFiles`](super::FollowedFiles) does:
///
/// ```text
/// key.pem        -> ..data/key.pem
/// cert-chain.pem -> ..data/cert-chain.pem
/// ..data         -> ..generation-7            (the rename replaces this link)
/// ..generation-7/{key.pem, cert-chain.pem}
/// ```
///
/// A reader that opens the flat names one after another can still be overtaken between two of them; one that opens
/// `..data` first cannot, because the generation before the current one stays until the next time.
///
/// ```
/// use ca_core::files::{PublishedFile, PublishedFolder};
/// # let base = tempfile::tempdir()?;
/// # let path = base.path().join("certs");
///
/// let folder = PublishedFolder::open(&path, 0o700)?;
/// folder.replace(&[
///     PublishedFile { name: "key.pem", mode: 0o600, content: b"KEY" },
///     PublishedFile { name: "cert-chain.pem", mode: 0o644, content: b"CHAIN" },
/// ])?;
/// assert_eq!(std::fs::read(path.join("key.pem"))?, b"KEY");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PublishedFolder {
    path: PathBuf,
    mode: u32,
}

/// One of the files.
#[derive(Clone, Copy)]
pub struct PublishedFile<'a> {
    /// Without any path.
    pub name: &'a str,
    /// Its permissions, such as `0o600` for a key.
    pub mode: u32,
    /// All of it.
    pub content: &'a [u8],
}

impl PublishedFolder {
    /// Makes the folder if need be, with at most these permissions (less what the umask takes), and proves that it can
    /// be written. One that is there already loses what `mode` does not have, and gains nothing.
    ///
    /// # Errors
    /// When it cannot.
    pub fn open(path: impl Into<PathBuf>, mode: u32) -> io::Result<Self> {
        let folder = Self {
            path: path.into(),
            mode,
        };
        folder.make()?;
        let found = fs::metadata(&folder.path)?.permissions().mode() & 0o777;
        if found & !mode != 0 {
            fs::set_permissions(&folder.path, Permissions::from_mode(found & mode))?;
        }
        let proof = folder.path.join(TEMPORARY);
        remove_if_there(&proof)?;
        symlink(CURRENT, &proof)?;
        fs::remove_file(proof)?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the files all at once. **Blocks** on the disk until they are safe there.
    ///
    /// # Errors
    /// When something cannot be written. Readers then have the generation before.
    pub fn replace(&self, files: &[PublishedFile<'_>]) -> io::Result<()> {
        // Somebody may have cleared it away.
        self.make()?;
        let old = fs::read_link(self.path.join(CURRENT)).ok();
        let new = self.make_generation()?;
        for file in files {
            file.write_into(&self.path.join(&new))?;
        }
        self.link(Path::new(&new), CURRENT)?;
        for PublishedFile { name, .. } in files {
            // After the first time this finds everything in place.
            let target = Path::new(CURRENT).join(name);
            if fs::read_link(self.path.join(name)).ok().as_ref() != Some(&target) {
                self.link(&target, name)?;
            }
        }
        self.remove_generations_except(&new, old.as_deref())
    }

    fn make(&self) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(self.mode).create(&self.path)
    }

    /// A folder with a name that was not there, so that nothing is ever written twice.
    fn make_generation(&self) -> io::Result<String> {
        let generations = self.generations()?;
        let newest = generations.iter().filter_map(|name| number(name)).max();
        let name = format!("{PREFIX}{}", newest.map_or(1, |newest| newest + 1));
        DirBuilder::new()
            .mode(self.mode)
            .create(self.path.join(&name))?;
        Ok(name)
    }

    /// Makes `name` a link to `target` in one step, whatever it was before.
    fn link(&self, target: &Path, name: &str) -> io::Result<()> {
        let temporary = self.path.join(TEMPORARY);
        remove_if_there(&temporary)?;
        symlink(target, &temporary)?;
        fs::rename(temporary, self.path.join(name))
    }

    /// All others go, also what a process that was killed half-way left behind.
    fn remove_generations_except(&self, current: &str, previous: Option<&Path>) -> io::Result<()> {
        for name in self.generations()? {
            if name != current && Some(Path::new(&name)) != previous {
                fs::remove_dir_all(self.path.join(name))?;
            }
        }
        Ok(())
    }

    fn generations(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if number(&name).is_some() {
                names.push(name);
            }
        }
        Ok(names)
    }
}

impl PublishedFile<'_> {
    fn write_into(&self, folder: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(self.mode)
            .open(folder.join(self.name))?;
        file.write_all(self.content)?;
        // Before the rename that publishes it: a power cut must not leave links to empty files.
        file.sync_all()
    }
}

/// Without the content, which may be a key.
impl std::fmt::Debug for PublishedFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublishedFile({:?}, {:o})", self.name, self.mode)
    }
}

fn number(generation: &str) -> Option<u64> {
    generation.strip_prefix(PREFIX)?.parse().ok()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The link that says which generation is current.
const CURRENT: &str = "..data";
const PREFIX: &str = "..generation-";
/// Where links are made before a rename puts them into place.
const TEMPORARY: &str = "..link";

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(number: usize) -> [(&'static str, String); 2] {
        ["key.pem", "cert-chain.pem"].map(|name| (name, number.to_string()))
    }

    fn replace(folder: &PublishedFolder, number: usize) {
        let pair = pair(number);
        let files = pair.each_ref().map(|(name, text)| PublishedFile {
            name,
            mode: 0o600,
            content: text.as_bytes(),
        });
        folder.replace(&files).unwrap();
    }

    #[test]
    fn flat_names_lead_to_the_current_files_and_only_the_last_two_generations_are_kept() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("made/for/it");
        let folder = PublishedFolder::open(&path, 0o700).unwrap();
        for number in 0..4 {
            replace(&folder, number);
            for (name, text) in pair(number) {
                assert_eq!(fs::read_to_string(path.join(name)).unwrap(), text);
            }
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(CURRENT)), 0o700);
        assert_eq!(mode(&path.join("key.pem")), 0o600);
        assert_eq!(folder.generations().unwrap().len(), 2);
        assert!(!path.join(TEMPORARY).exists());
    }

    #[test]
    fn leftovers_plain_files_and_a_wide_open_folder_are_no_obstacle() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(path.join("..generation-41")).unwrap();
        fs::write(path.join("..generation-41/key.pem"), "half").unwrap();
        fs::write(path.join("key.pem"), "old").unwrap();
        symlink("nowhere", path.join(TEMPORARY)).unwrap();
        let folder = PublishedFolder::open(path, 0o700).unwrap();
        replace(&folder, 1);
        assert_eq!(fs::read_to_string(path.join("key.pem")).unwrap(), "1");
        assert_eq!(folder.generations().unwrap(), ["..generation-42"]);
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_is_cleared_away_is_made_again() {
        let base = tempfile::tempdir().unwrap();
        let folder = PublishedFolder::open(base.path().join("certs"), 0o700).unwrap();
        replace(&folder, 1);
        fs::remove_dir_all(folder.path()).unwrap();
        replace(&folder, 2);
        let key = fs::read_to_string(folder.path().join("key.pem")).unwrap();
        assert_eq!(key, "2");
    }

    #[test]
    fn a_reader_that_opens_the_current_folder_never_sees_a_mixed_pair() {
        let base = tempfile::tempdir().unwrap();
        let folder = PublishedFolder::open(base.path(), 0o700).unwrap();
        replace(&folder, 0);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 1..100 {
                    replace(&folder, number);
                }
            });
            let mut seen = 0;
            while !writer.is_finished() || seen == 0 {
                // Overtaken twice, here or below: the reader takes the next one.
                let Ok(held) = fs::canonicalize(folder.path().join(CURRENT)) else {
                    continue;
                };
                let files = ["key.pem", "cert-chain.pem"].map(|name| fs::read(held.join(name)));
                let [Ok(key), Ok(chain)] = files else {
                    continue;
                };
                assert_eq!(key, chain);
                seen += 1;
            }
        });
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_found_at_once_and_no_content_is_shown() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(PublishedFolder::open(file.join("below"), 0o700).is_err());
        let (name, mode, content) = ("key.pem", 0o600, &b"SECRET"[..]);
        let shown = format!(
            "{:?}",
            PublishedFile {
                name,
                mode,
                content
            }
        );
        assert_eq!(shown, "PublishedFile(\"key.pem\", 600)");
    }
}
