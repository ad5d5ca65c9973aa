//! Certificates by hand, where no CA can be reached: the request lies in a folder until somebody has put
//! an answer beside it.

mod dropped;
mod keys;

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ca_core::{
    BoxFuture, Csr, IssuedChain, KeyError, PrivateKey, PublicKey, SigningKey as _,
    files::{FileSet, FollowError, FollowOptions, FollowedFiles},
};

use self::{dropped::Dropped, keys::Keys};
use super::{CaClient, CaError};
use crate::{clock, config::DropConfig};

const REQUEST: &str = "workload.csr";
pub(super) const CHAIN: &str = "cert-chain.pem";
pub(super) const ROOTS: &str = "root-cert.pem";

/// How long an attempt waits for a person. What it ends with is told once, when it is new; this only
/// says how often a wait that goes on is mentioned.
const PATIENCE: Duration = Duration::from_secs(600);

/// Waits for certificates in a folder.
///
/// The key stays the same until it has a certificate that is in use: a person takes longer than an attempt.
pub(crate) struct DropCaClient {
    folder: PathBuf,
    drops: FollowedFiles<Dropped>,
    /// Locked for as long as a look takes.
    state: Mutex<State>,
}

struct State {
    keys: Keys,
    /// The key of the valid certificate.
    in_use: Option<PublicKey>,
    /// What is in the folder and has been judged for the key that is asked for, so that it is not told again and again.
    told: Option<Seen>,
    asked_for: Option<PublicKey>,
}

/// What is in the folder, by number: contents that were read, and that could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen(u64, u64);

impl DropCaClient {
    /// Looks at the folder, which is made if need be, and follows it from then on.
    ///
    /// # Errors
    ///
    /// When the folder, or a key that was kept there, cannot be used.
    pub(crate) fn open(config: DropConfig) -> Result<Self, DropError> {
        let DropConfig { folder, keep_keys } = config;
        fs::create_dir_all(&folder).map_err(|error| DropError::Write(folder.clone(), error))?;
        let keys = if keep_keys {
            Keys::kept_in(&folder)?
        } else {
            Keys::in_memory()
        };
        let [chain, roots] = [CHAIN, ROOTS].map(|name| folder.join(name));
        let files = FileSet::new().optional(&chain).optional(&roots);
        let drops = FollowedFiles::start_with(
            Dropped::Nothing,
            files,
            FollowOptions::new(),
            move |files, _previous| {
                let drop = Dropped::read(files.get(&chain), files.get(&roots));
                Ok::<_, std::convert::Infallible>(drop)
            },
        )?;
        Ok(Self {
            folder,
            drops,
            state: Mutex::new(State {
                keys,
                in_use: None,
                told: None,
                asked_for: None,
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Seen {
        Seen(self.drops.generation(), self.drops.status().refusals)
    }

    /// Puts the request there, unless one for the same key is there already: it may be on its way to somebody.
    fn write_request(&self, csr_pem: &str, key: &PublicKey) -> Result<(), DropError> {
        let path = self.folder.join(REQUEST);
        let there = fs::read(&path)
            .ok()
            .and_then(|old| Csr::from_pem(&old).ok());
        if there.is_some_and(|old| old.public_key() == key) {
            return Ok(());
        }
        write_file(&path, 0o644, csr_pem.as_bytes()).map_err(|e| DropError::Write(path, e))
    }

    /// What the folder holds for this key.
    fn look(&self, key: &PublicKey, in_use: Option<&PublicKey>) -> Result<IssuedChain, DropError> {
        let status = self.drops.status();
        if let Some(refusal) = status.last_refusal.as_ref().filter(|_| status.is_refused) {
            let folder = self.folder.clone();
            return Err(DropError::Unreadable(folder, refusal.error.to_string()));
        }
        self.drops.current().answer(key, in_use, &self.folder)
    }

    async fn wait_for(&self, csr_pem: &str) -> Result<IssuedChain, DropError> {
        let csr = Csr::from_pem(csr_pem.as_bytes()).map_err(|_| DropError::Request)?;
        let key = csr.public_key();
        let in_use = self.state().in_use.clone();
        // Subscribed before the look: what comes between is not missed.
        let (mut read, mut refused) = (self.drops.subscribe(), self.drops.subscribe());
        if self.look(key, in_use.as_ref()).is_err() {
            self.write_request(csr_pem, key)?;
        }
        if self.state().told == Some(self.seen()) {
            let change = async {
                tokio::select! {
                    _ = read.changed() => {}
                    _ = refused.refused() => {}
                }
            };
            let _ = tokio::time::timeout(PATIENCE, change).await;
        }
        self.state().told = Some(self.seen());
        self.look(key, in_use.as_ref())
    }
}

impl CaClient for DropCaClient {
    fn sign(
        &self,
        csr_pem: String,
        // Whoever signs decides: a CSR has no place for it.
        _lifetime: Duration,
    ) -> BoxFuture<'_, Result<IssuedChain, CaError>> {
        Box::pin(async move { Ok(self.wait_for(&csr_pem).await?) })
    }

    fn key(&self, in_use: Option<&PublicKey>) -> Result<PrivateKey, KeyError> {
        let mut state = self.state();
        state.in_use = in_use.cloned();
        // After a restart the answer may be there already, unless it is one that was found wanting.
        if in_use.is_none()
            && state.told != Some(self.seen())
            && let Some(key) = self.drops.current().key_at(clock::now())
            && let Some(known) = state.keys.find(key)
        {
            return Ok(known);
        }
        let key = state.keys.next(in_use)?;
        if state.asked_for.as_ref() != Some(key.public_key()) {
            state.told = None;
            state.asked_for = Some(key.public_key().clone());
        }
        Ok(key)
    }

    fn changes(&self) -> BoxFuture<'static, ()> {
        let (mut read, mut refused) = (self.drops.subscribe(), self.drops.subscribe());
        Box::pin(async move {
            tokio::select! {
                _ = read.changed() => {}
                _ = refused.refused() => {}
            }
        })
    }
}

impl fmt::Debug for DropCaClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DropCaClient")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// Writes a file that is there as a whole or not at all.
fn write_file(path: &Path, mode: u32, contents: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)?;
    file.write_all(contents)?;
    // Before the rename: a power cut must not leave a name without contents.
    file.sync_all()?;
    fs::rename(new, path)
}

/// Why a folder gives no certificate.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// Missing permissions, most likely.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// A kept key is not one.
    #[error("the key in {} cannot be used", .0.display())]
    Key(PathBuf, #[source] KeyError),
    /// A kept key is there and cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The system has no thread for it.
    #[error("cannot follow the folder")]
    Follow(#[from] FollowError),
    /// Our own request does not read. Never in practice.
    #[error("the request for a certificate does not read")]
    Request,
    /// Somebody has yet to sign.
    #[error("waiting for {missing} in {}, for the request in {REQUEST}", folder.display())]
    Waiting {
        /// Where.
        folder: PathBuf,
        /// The files that are missing or old.
        missing: &'static str,
    },
    /// Files are there and not readable.
    #[error("the certificates in {folder} cannot be read: {1}", folder = .0.display())]
    Unreadable(PathBuf, String),
    /// A file is there and holds something else.
    #[error("{} is refused: {reason}", file.display())]
    Broken {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// An answer to another request.
    #[error("{} is refused: it is not for the key of {REQUEST}", .0.display())]
    OtherKey(PathBuf),
}
