//! A file of lines that is put aside when it is full.

use std::borrow::Cow;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// When a file has grown enough, and how many full ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RotationLimits {
    pub(crate) max_bytes: u64,
    /// At least one, which `--audit-keep` sees to.
    pub(crate) keep: u32,
}

/// A file that is put aside when it is full: `audit.log`, then `audit.log.1`, `audit.log.2`, …, the highest the oldest.
///
/// Others may move, delete, replace and cut it, and a line may fail half way: what was written is a whole line at the path.
#[derive(Debug)]
pub(super) struct RotatedFile {
    pub(super) path: PathBuf,
    limits: RotationLimits,
    file: File,
    /// What is behind the path while nobody has moved it.
    id: FileId,
    /// How long it is. If it is found to be of another length, others have written or cut, or a line has failed.
    pub(super) bytes: u64,
    /// Half a line is at its end: the next one begins with a newline.
    is_torn: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Same,
    /// Another file, or none: it is opened anew.
    Another,
}

impl RotatedFile {
    pub(super) fn open(path: &Path, limits: RotationLimits) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            path: path.into(),
            limits,
            file,
            id: FileId::of(&metadata),
            bytes: metadata.len(),
            is_torn: ends_in_half_a_line(path, metadata.len()),
        })
    }

    /// Puts a whole line at the end of the file at the path, or nothing. When the file is moved at that very moment, the line
    /// may be in both.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.write_by(line, |mut file, bytes| file.write_all(bytes))
    }

    fn write_by(
        &mut self,
        line: &[u8],
        mut put: impl FnMut(&File, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.follow()?;
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.limits.max_bytes {
            self.put_aside()?;
        }
        self.append(line, &mut put)?;
        // Whoever has moved it meanwhile, to compress it perhaps, may have read it before this line was there.
        match self.follow()? {
            Found::Same => Ok(()),
            Found::Another => self.append(line, &mut put),
        }
    }

    /// Goes by what others have done since.
    fn follow(&mut self) -> io::Result<Found> {
        match fs::metadata(&self.path) {
            Ok(found) if FileId::of(&found) == self.id => {
                if found.len() != self.bytes {
                    self.bytes = found.len();
                    self.is_torn = ends_in_half_a_line(&self.path, self.bytes);
                }
                return Ok(Found::Same);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        *self = Self::open(&self.path, self.limits)?;
        tracing::info!(path = %self.path.display(), "the file was moved or deleted, and is opened anew");
        Ok(Found::Another)
    }

    fn append(
        &mut self,
        line: &[u8],
        put: &mut impl FnMut(&File, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let line = if self.is_torn {
            Cow::from([b"\n", line].concat())
        } else {
            Cow::from(line)
        };
        if let Err(error) = put(&self.file, &line) {
            // If this fails too, the file is found longer than it should be, and its end is looked at.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += line.len() as u64;
        self.is_torn = false;
        Ok(())
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        if self.is_torn {
            // For those who read all files as one. If it fails, putting aside may be what makes room.
            let _ = self.file.write_all(b"\n");
        }
        for number in (1..self.limits.keep).rev() {
            rename_if_there(&numbered(number), &numbered(number + 1))?;
        }
        rename_if_there(&self.path, &numbered(1))?;
        *self = Self::open(&self.path, self.limits)?;
        Ok(())
    }
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// In doubt it does: one newline too many does no harm.
fn ends_in_half_a_line(path: &Path, bytes: u64) -> bool {
    let Some(at) = bytes.checked_sub(1) else {
        return false;
    };
    let mut last = [0];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut last, at));
    read.is_err() || last != *b"\n"
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ROOMY: RotationLimits = RotationLimits {
        max_bytes: 1000,
        keep: 2,
    };

    /// A folder for a file, and where the file is.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        (folder, path)
    }

    fn text(path: impl AsRef<Path>) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() {
        let (folder, path) = place();
        let limits = RotationLimits {
            max_bytes: 10,
            keep: 2,
        };
        for line in [
            "one\n", "two\n", "three\n", "four\n", "five\n", "six\n", "seven\n",
        ] {
            // Opened anew each time: a restart goes on in the same file.
            RotatedFile::open(&path, limits)
                .unwrap()
                .write(line.as_bytes())
                .unwrap();
        }
        let read = |name: &str| text(folder.path().join(name));
        // Ten bytes: "one two", "three", "four five", "six seven", of which the first two are gone or going.
        assert_eq!(read("audit.log"), "six\nseven\n");
        assert_eq!(read("audit.log.1"), "four\nfive\n");
        assert_eq!(read("audit.log.2"), "three\n");
        assert!(!folder.path().join("audit.log.3").exists());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn what_is_moved_deleted_replaced_or_cut_by_others_goes_on_at_its_path() {
        let (folder, path) = place();
        let moved = folder.path().join("moved");
        let mut file = RotatedFile::open(&path, ROOMY).unwrap();
        file.write(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write(b"two\n").unwrap();
        assert_eq!(
            (text(&moved), text(&path)),
            ("one\n".into(), "two\n".into())
        );
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        fs::remove_file(&path).unwrap();
        file.write(b"three\n").unwrap();
        assert_eq!(text(&path), "three\n");

        fs::write(&moved, "of somebody else\n").unwrap();
        fs::rename(&moved, &path).unwrap();
        file.write(b"four\n").unwrap();
        assert_eq!(text(&path), "of somebody else\nfour\n");

        fs::write(&path, "").unwrap();
        file.write(b"five\n").unwrap();
        assert_eq!((text(&path), file.bytes), ("five\n".into(), 5));

        // A folder that is gone is told, and forgotten when it is there again.
        let away = folder.path().with_extension("away");
        fs::rename(folder.path(), &away).unwrap();
        let error = file.write(b"six\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        fs::rename(&away, folder.path()).unwrap();
        file.write(b"seven\n").unwrap();
        assert_eq!(text(&path), "five\nseven\n");
    }

    #[test]
    fn a_full_file_that_is_gone_needs_not_be_put_aside() {
        let (folder, path) = place();
        let limits = RotationLimits {
            max_bytes: 5,
            keep: 2,
        };
        let mut file = RotatedFile::open(&path, limits).unwrap();
        file.write(b"one\n").unwrap();
        fs::remove_file(&path).unwrap();
        file.write(b"two\n").unwrap();
        assert_eq!(text(&path), "two\n");
        // Gone after it was looked for.
        fs::remove_file(&path).unwrap();
        file.put_aside().unwrap();
        file.write(b"three\n").unwrap();
        assert_eq!(text(&path), "three\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_line_whose_file_is_moved_before_it_comes_is_in_the_next_one_too() {
        let (folder, path) = place();
        let moved = folder.path().join("moved");
        let mut file = RotatedFile::open(&path, ROOMY).unwrap();
        let written = file.write_by(b"one\n", |mut file, bytes| {
            if !moved.exists() {
                fs::rename(&path, &moved).unwrap();
            }
            file.write_all(bytes)
        });
        written.unwrap();
        assert_eq!(
            (text(&moved), text(&path)),
            ("one\n".into(), "one\n".into())
        );
    }

    #[test]
    fn what_is_written_of_a_line_that_fails_is_taken_back() {
        let (_folder, path) = place();
        let mut file = RotatedFile::open(&path, ROOMY).unwrap();
        file.write(b"one\n").unwrap();
        let full = file.write_by(b"two\n", |mut file, bytes| {
            file.write_all(&bytes[..2]).unwrap();
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(text(&path), "one\n");
        file.write(b"three\n").unwrap();
        assert_eq!(text(&path), "one\nthree\n");
    }

    #[test]
    fn half_a_line_that_is_found_is_ended_before_the_next() {
        let (folder, path) = place();
        fs::write(&path, "one\nha").unwrap();
        let mut file = RotatedFile::open(&path, ROOMY).unwrap();
        // Still so after a failure.
        let full = file.write_by(b"two\n", |mut file, bytes| {
            file.write_all(&bytes[..2]).unwrap();
            Err(io::ErrorKind::StorageFull.into())
        });
        full.unwrap_err();
        file.write(b"three\n").unwrap();
        assert_eq!(text(&path), "one\nha\nthree\n");
        // What could not be taken back looks the same.
        let mut other = OpenOptions::new().append(true).open(&path).unwrap();
        other.write_all(b"lf").unwrap();
        file.write(b"four\n").unwrap();
        assert_eq!(text(&path), "one\nha\nthree\nlf\nfour\n");
        // And it is ended where no other line comes.
        fs::write(&path, "half").unwrap();
        let limits = RotationLimits {
            max_bytes: 5,
            keep: 2,
        };
        let mut file = RotatedFile::open(&path, limits).unwrap();
        file.write(b"five\n").unwrap();
        let aside = folder.path().join("audit.log.1");
        assert_eq!(
            (text(aside), text(&path)),
            ("half\n".into(), "five\n".into())
        );
    }

    #[test]
    fn a_device_is_never_full_of_lines() {
        let (folder, path) = place();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let limits = RotationLimits {
            max_bytes: 1,
            keep: 2,
        };
        let mut file = RotatedFile::open(&path, limits).unwrap();
        for _ in 0..2 {
            file.write(b"one\n").unwrap();
            assert_eq!(file.bytes, 0);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
