//! Which files belong together, and what they hold at one moment.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ring::digest::{self, SHA256};
use zeroize::Zeroizing;

use super::resolve::{Lookups, Resolver};

/// Files that mean something only together, such as a certificate and its key.
#[derive(Clone, Debug)]
pub struct FileSet {
    files: BTreeMap<PathBuf, Presence>,
    max_file_size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}

impl FileSet {
    /// No file yet. Each may have up to 1 MiB, which is the size of the largest Kubernetes Secret or `ConfigMap`.
    pub fn new() -> Self {
        Self {
            files: BTreeMap::new(),
            max_file_size: 1024 * 1024,
        }
    }

    /// Adds a file without which the others are not looked at.
    #[must_use]
    pub fn required(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.insert(path.into(), Presence::Required);
        self
    }

    /// Adds a file that may be absent, unless it is [`required`](Self::required) already.
    #[must_use]
    pub fn optional(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.entry(path.into()).or_insert(Presence::Optional);
        self
    }

    /// How many bytes one file may have.
    #[must_use]
    pub fn max_file_size(mut self, bytes: u64) -> Self {
        self.max_file_size = bytes;
        self
    }

    /// Reads all files as of one moment. **Blocks** on the disk.
    ///
    /// # Errors
    /// When a required file is missing, a file cannot be read or is too large, or they do not hold still.
    pub fn read(&self) -> Result<Snapshot, ReadError> {
        self.clone().absolute()?.read().snapshot
    }

    /// Fixes what relative paths mean.
    pub(super) fn absolute(self) -> Result<AbsoluteSet, ReadError> {
        let files = self.files.into_iter().map(|(name, presence)| {
            Ok(AbsoluteFile {
                absolute: std::path::absolute(&name).map_err(|e| ReadError::io(&name, e))?,
                name,
                presence,
            })
        });
        Ok(AbsoluteSet {
            files: files.collect::<Result<_, _>>()?,
            max_file_size: self.max_file_size,
        })
    }
}

impl Default for FileSet {
    fn default() -> Self {
        Self::new()
    }
}

/// What the files of a [`FileSet`] held at one moment. All required files are in it. Wiped when dropped.
pub struct Snapshot {
    files: BTreeMap<PathBuf, Option<Zeroizing<Vec<u8>>>>,
    hash: ContentHash,
}

pub(super) type ContentHash = [u8; 32];

impl Snapshot {
    /// The bytes of a file, named as in the set. `None` when it is absent or not in the set.
    pub fn get(&self, path: impl AsRef<Path>) -> Option<&[u8]> {
        self.files.get(path.as_ref())?.as_ref().map(|b| &***b)
    }

    /// The bytes of a file that must be there.
    ///
    /// # Errors
    /// When it is absent or not in the set.
    pub fn require(&self, path: impl AsRef<Path>) -> Result<&[u8], ReadError> {
        let path = path.as_ref();
        self.get(path).ok_or_else(|| ReadError::Missing {
            path: path.to_path_buf(),
        })
    }

    /// SHA-256 over the files, in the order of their names: equal for equal bytes in the same files of the same set.
    pub fn content_hash(&self) -> &[u8; 32] {
        &self.hash
    }

    fn new(files: BTreeMap<PathBuf, Option<Zeroizing<Vec<u8>>>>) -> Self {
        let mut context = digest::Context::new(&SHA256);
        for bytes in files.values() {
            // Length first, so that bytes cannot move from one file to the next unseen.
            match bytes {
                None => context.update(&[0]),
                Some(bytes) => {
                    context.update(&[1]);
                    context.update(&(bytes.len() as u64).to_be_bytes());
                    context.update(bytes);
                }
            }
        }
        let mut hash = ContentHash::default();
        hash.copy_from_slice(context.finish().as_ref());
        Self { files, hash }
    }
}

/// Names and sizes: the bytes may be a key.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.files
                    .iter()
                    .map(|(p, b)| (p, b.as_ref().map(|b| b.len()))),
            )
            .finish()
    }
}

/// Why files were not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A required file is not there.
    #[error("{}: missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
    /// More than the set allows.
    #[error("{}: larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What the set allows.
        limit: u64,
    },
    /// Whenever they were read, they were different.
    #[error("the files keep changing while they are read")]
    Changing,
}

impl ReadError {
    fn io(path: &Path, cause: io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            cause,
        }
    }
}

/// A set that no longer depends on the working directory.
#[derive(Debug)]
pub(super) struct AbsoluteSet {
    files: Vec<AbsoluteFile>,
    max_file_size: u64,
}

#[derive(Debug)]
struct AbsoluteFile {
    name: PathBuf,
    absolute: PathBuf,
    presence: Presence,
}

/// What was found, and on which way.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) lookups: Lookups,
    pub(super) snapshot: Result<Snapshot, ReadError>,
}

/// Two in a row must agree.
const READINGS: usize = 6;

impl AbsoluteSet {
    /// A reading is taken for true when the next one says the same: nothing has changed between the first byte of the
    /// first file and the last byte of the last. Bytes are compared rather than modification times, which are too
    /// coarse for two quick writes, and which some file systems do not keep.
    pub(super) fn read(&self) -> Reading {
        let mut last = self.read_once();
        for _ in 1..READINGS {
            let next = self.read_once();
            if next.agrees(&last) {
                return next;
            }
            last = next;
        }
        Reading {
            lookups: last.lookups,
            snapshot: Err(ReadError::Changing),
        }
    }

    fn read_once(&self) -> Reading {
        let mut resolver = Resolver::default();
        // All ways first, so that no file is read between two looks at one link.
        let resolved: Vec<_> = self
            .files
            .iter()
            .map(|f| (f, resolver.resolve(&f.absolute)))
            .collect();
        let files = resolved.into_iter().map(|(file, path)| {
            let bytes = path
                .map_err(|e| ReadError::io(&file.name, e))
                .and_then(|p| read_file(&p, &file.name, self.max_file_size));
            match bytes {
                Ok(bytes) => Ok((file.name.clone(), Some(bytes))),
                Err(ReadError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                    match file.presence {
                        Presence::Optional => Ok((file.name.clone(), None)),
                        Presence::Required => Err(ReadError::Missing {
                            path: file.name.clone(),
                        }),
                    }
                }
                Err(error) => Err(error),
            }
        });
        let snapshot = files.collect::<Result<_, _>>().map(Snapshot::new);
        Reading {
            lookups: resolver.into_lookups(),
            snapshot,
        }
    }
}

impl Reading {
    fn agrees(&self, other: &Self) -> bool {
        self.lookups == other.lookups
            && match (&self.snapshot, &other.snapshot) {
                (Ok(a), Ok(b)) => a.hash == b.hash,
                (Err(a), Err(b)) => a.to_string() == b.to_string(),
                _ => false,
            }
    }
}

fn read_file(path: &Path, name: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let io_error = |e| ReadError::io(name, e);
    let too_large = || ReadError::TooLarge {
        path: name.to_path_buf(),
        limit,
    };
    // Before it is opened: opening a named pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(io_error)?;
    if !metadata.is_file() {
        return Err(io_error(io::Error::other("not a regular file")));
    }
    if metadata.len() > limit {
        return Err(too_large());
    }
    let mut file = File::open(path).map_err(io_error)?;
    // One more than the size, so that the end is seen without growing. A vector that grows by itself would leave
    // copies of a key behind.
    let mut bytes = Zeroizing::new(vec![0; as_len(metadata.len()).saturating_add(1)]);
    let mut filled = 0;
    loop {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(io_error(e)),
        }
        if filled > as_len(limit) {
            return Err(too_large());
        }
        if filled == bytes.len() {
            let mut larger = Zeroizing::new(vec![0; filled.saturating_mul(2)]);
            larger[..filled].copy_from_slice(&bytes);
            bytes = larger;
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn as_len(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
