//! The Unix socket: make the folder, take over what a dead agent left, refuse to push out a live one.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::{UnixListener, UnixStream as UnixConnection};

use crate::{accept::Listener, config::SocketConfig, metrics::Metrics};

/// Opens the socket.
///
/// This is done long before there is a certificate: an Envoy that finds no socket backs off for
/// seconds, one that waits on an open stream gets its answer within milliseconds.
///
/// # Errors
///
/// When another server answers on the socket, when something else lies at its path, or when folder
/// or socket cannot be made.
pub(crate) fn bind(config: &SocketConfig) -> Result<UnixListener, SocketError> {
    let path = &config.path;
    let failed = |what| {
        move |error| SocketError::Failed {
            what,
            path: path.clone(),
            error,
        }
    };
    if let Some(folder) = path.parent() {
        // Like Istio's. Folders that exist stay as they are.
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o750)
            .create(folder)
            .map_err(failed("make the folder of"))?;
    }
    remove_dead(path)?;
    let listener = UnixListener::bind(path).map_err(failed("open"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(config.mode))
        .map_err(failed("set the permissions of"))?;
    Ok(listener)
}

fn remove_dead(path: &Path) -> Result<(), SocketError> {
    let failed = |what| {
        move |error| SocketError::Failed {
            what,
            path: path.to_owned(),
            error,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(SocketError::NotASocket(path.to_owned())),
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        // Nobody listens. Only now, so that a live server never loses its socket.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the abandoned"))
        }
        Err(error) => Err(failed("reach the server behind")(error)),
    }
}

/// Who may connect, by user and group of the process at the other end. Nobody named: everybody who can
/// reach the socket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    pub(crate) users: Vec<u32>,
    /// Primary groups: the kernel tells no others.
    pub(crate) groups: Vec<u32>,
}

impl Peers {
    fn admit(&self, stream: &UnixConnection) -> io::Result<()> {
        if self.users.is_empty() && self.groups.is_empty() {
            return Ok(());
        }
        let peer = stream.peer_cred()?;
        let (user, group) = (peer.uid(), peer.gid());
        if self.users.contains(&user) || self.groups.contains(&group) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "neither user {user} nor group {group} is allowed"
        )))
    }
}

/// A listener that hangs up on whom it does not admit.
#[derive(Debug)]
pub(crate) struct GuardedListener {
    listener: UnixListener,
    peers: Peers,
    metrics: Arc<Metrics>,
}

impl GuardedListener {
    pub(crate) fn new(listener: UnixListener, peers: Peers, metrics: Arc<Metrics>) -> Self {
        Self {
            listener,
            peers,
            metrics,
        }
    }
}

impl Listener for GuardedListener {
    type Stream = UnixConnection;

    async fn accept(&mut self) -> io::Result<UnixConnection> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            match self.peers.admit(&stream) {
                Ok(()) => return Ok(stream),
                Err(error) => {
                    self.metrics.refused_peers.inc();
                    tracing::warn!(%error, "a connection was refused");
                }
            }
        }
    }
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Someone else serves it.
    #[error("another server is already listening on {}", .0.display())]
    InUse(PathBuf),
    /// It would have to be deleted, and nobody said so.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system said no.
    #[error("cannot {what} socket {}", path.display())]
    Failed {
        /// What was tried.
        what: &'static str,
        /// With which socket.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: PathBuf) -> SocketConfig {
        SocketConfig {
            path,
            mode: 0o660,
            peers: Peers::default(),
        }
    }

    #[tokio::test]
    async fn folders_are_made_and_permissions_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/socket");
        let _listener = bind(&config(path.clone())).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o660);
        assert_eq!(
            mode(path.parent().unwrap()) & 0o027,
            0o020 & mode(path.parent().unwrap())
        );
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[tokio::test]
    async fn a_dead_socket_is_taken_over_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path().join("socket"));
        let first = bind(&config).unwrap();
        assert!(matches!(bind(&config), Err(SocketError::InUse(_))));
        drop(first);
        assert!(
            config.path.exists(),
            "a killed server leaves its socket behind"
        );
        bind(&config).unwrap();
    }

    #[tokio::test]
    async fn only_allowed_peers_are_admitted() {
        let (ours, _theirs) = UnixConnection::pair().unwrap();
        let peer = ours.peer_cred().unwrap();
        let (user, group) = (peer.uid(), peer.gid());
        for (users, groups, admitted) in [
            (vec![], vec![], true),
            (vec![user + 1, user], vec![], true),
            (vec![user + 1], vec![group], true),
            (vec![], vec![group], true),
            (vec![user + 1], vec![], false),
            (vec![user + 1], vec![group + 1], false),
        ] {
            let peers = Peers { users, groups };
            assert_eq!(peers.admit(&ours).is_ok(), admitted, "{peers:?}");
        }
    }

    #[tokio::test]
    async fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "dear diary").unwrap();
        let error = bind(&config(path.clone())).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("notes.txt exists and is not a socket")
        );
        assert_eq!(fs::read_to_string(path).unwrap(), "dear diary");
    }
}
