//! A file of lines that is put aside when it is full.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// When a file has grown enough, and how many full ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RotationLimits {
    pub(crate) max_bytes: u64,
    pub(crate) keep: u32,
}

/// A file that is put aside when it is full: `audit.log`, then `audit.log.1`, `audit.log.2`, …, the highest the oldest.
#[derive(Debug)]
pub(super) struct RotatedFile {
    pub(super) path: PathBuf,
    limits: RotationLimits,
    file: File,
    pub(super) bytes: u64,
}

impl RotatedFile {
    pub(super) fn open(path: &Path, limits: RotationLimits) -> io::Result<Self> {
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.into(),
            limits,
            file,
            bytes,
        })
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.limits.max_bytes {
            self.put_aside()?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.limits.keep).rev() {
            match std::fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.limits.keep > 0 {
            std::fs::rename(&self.path, numbered(1))?;
        } else {
            std::fs::remove_file(&self.path)?;
        }
        self.file = append_to(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
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
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        // Ten bytes: "one two", "three", "four five", "six seven", of which the first two are gone or going.
        assert_eq!(read("audit.log"), "six\nseven\n");
        assert_eq!(read("audit.log.1"), "four\nfive\n");
        assert_eq!(read("audit.log.2"), "three\n");
        assert!(!folder.path().join("audit.log.3").exists());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
