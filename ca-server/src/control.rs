//! Orders from an operator to a running server: one line in, one answer out, over a Unix socket in the data folder that
//! only the owner of the CA's key can open.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum as _;
use time::OffsetDateTime;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::authority::rotator::RotationStep;
use crate::authority::signing::Signing;
use crate::observed::{Observed, Server};

/// The socket of a data folder.
pub(crate) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// Opens the socket. **The caller holds the lock of the folder**: whatever lies there is left over.
pub(crate) fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let path = path(data_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers for as long as the server runs.
pub(crate) async fn serve(listener: &UnixListener, server: Server) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = server.clone();
                tokio::spawn(async move {
                    let answered = tokio::time::timeout(DEADLINE, answer(stream, server)).await;
                    if let Ok(Err(error)) = answered {
                        tracing::debug!("control connection: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("control socket: {error}");
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, server: Server) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LONGEST_ORDER))
        .read_line(&mut line)
        .await?;
    let text = match obey(line.trim(), server).await {
        Ok(text) => format!("{OK}{text}\n"),
        Err(text) => format!("{FAILED}{text}\n"),
    };
    write.write_all(text.as_bytes()).await
}

async fn obey(order: &str, server: Server) -> Result<String, String> {
    match order {
        STATUS => Ok(status(&server).await),
        order => rotate(order, server).await,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an edge: the question is about now"
)]
async fn status(server: &Server) -> String {
    server.report(OffsetDateTime::now_utc()).await.to_json()
}

/// Where neither the root nor the key is ours, there is nothing to change, and that is the answer to the question.
async fn rotate(order: &str, server: Server) -> Result<String, String> {
    let step = order
        .strip_prefix("rotate ")
        .and_then(|step| RotationStep::from_str(step, false).ok());
    let step = step.ok_or_else(|| format!("unknown order {order:?}"))?;
    let (upstream, observed) = match server {
        Server::Complete(observed) => (observed.upstream.clone(), observed),
        Server::Waiting(waiting) => {
            return match waiting.upstream {
                Some(upstream) => upstream.ask(step).await,
                None => Err(format!(
                    "there is no CA yet: waiting for {}",
                    waiting.situation.wanted()
                )),
            };
        }
    };
    if let Some(upstream) = upstream {
        return upstream.ask(step).await;
    }
    let Some(rotator) = &observed.rotator else {
        let why = why_nothing_rotates(&observed);
        return match step {
            RotationStep::Status => Ok(why),
            _ => Err(why),
        };
    };
    let report = rotator.ask(step).await;
    report
        .map(|report| report.to_string())
        .map_err(|error| error.to_string())
}

fn why_nothing_rotates(observed: &Observed) -> String {
    if let Signing::Asked(_) = observed.signing {
        return "somebody else signs: there is no root here".into();
    }
    match &observed.files {
        Some((folder, _)) => format!(
            "this CA is plugged in: its root is rotated by replacing the files in {}",
            folder.display()
        ),
        None => "this CA is plugged in: its root is rotated by replacing its Secret".into(),
    }
}

/// Gives an order to the server that runs on a folder, and waits for the answer.
///
/// # Errors
/// When none runs there, or it says no.
pub(crate) fn order(data_dir: &Path, order: &str) -> Result<String, OrderError> {
    let path = path(data_dir);
    let io = |cause| OrderError::Io {
        path: path.clone(),
        cause,
    };
    let stream = std::os::unix::net::UnixStream::connect(&path);
    let mut stream = stream.map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => OrderError::NotRunning {
            folder: data_dir.into(),
        },
        _ => io(cause),
    })?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(io)?;
    writeln!(stream, "{order}").map_err(io)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(io)?;
    match (answer.strip_prefix(OK), answer.strip_prefix(FAILED)) {
        (Some(good), _) => Ok(good.into()),
        (None, Some(refusal)) => Err(OrderError::Refused(refusal.trim().into())),
        (None, None) => Err(OrderError::Refused("the server gave no answer".into())),
    }
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OrderError {
    /// Nobody holds the folder.
    #[error("{}: no ca-server runs on it", folder.display())]
    NotRunning {
        /// The data folder.
        folder: PathBuf,
    },
    /// The server cannot be asked.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The control socket.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// The server says no.
    #[error("{0}")]
    Refused(String),
}

/// The order that asks how the server is, as JSON.
pub(crate) const STATUS: &str = "status";
/// In front of an answer that is good.
const OK: &str = "ok\n";
/// In front of a refusal.
const FAILED: &str = "failed\n";
const LONGEST_ORDER: u64 = 256;
const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
