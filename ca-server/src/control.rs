//! Orders from an operator to a running server: one line in, one answer out, over a Unix socket in the data folder that
//! only the owner of the CA's key can open.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::authority::rotator::{RotationStep, RotatorHandle};

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

/// Answers for as long as the server runs. Without a rotator the CA's key is not ours to change.
pub(crate) async fn serve(listener: UnixListener, rotator: Option<RotatorHandle>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let rotator = rotator.clone();
                tokio::spawn(async move {
                    let answered = tokio::time::timeout(DEADLINE, answer(stream, rotator)).await;
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

async fn answer(stream: UnixStream, rotator: Option<RotatorHandle>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LONGEST_ORDER))
        .read_line(&mut line)
        .await?;
    let text = match obey(line.trim(), rotator).await {
        Ok(text) => format!("{OK}{text}\n"),
        Err(text) => format!("{FAILED}{text}\n"),
    };
    write.write_all(text.as_bytes()).await
}

async fn obey(order: &str, rotator: Option<RotatorHandle>) -> Result<String, String> {
    let step = order
        .strip_prefix("rotate ")
        .and_then(|step| RotationStep::from_str(step, false).ok());
    let step = step.ok_or_else(|| format!("unknown order {order:?}"))?;
    let rotator = rotator.ok_or("this CA's key is plugged in: replace its files instead")?;
    rotator
        .ask(step)
        .await
        .map(|report| report.to_string())
        .map_err(|error| error.to_string())
}

/// In front of an answer that is good.
pub(crate) const OK: &str = "ok\n";
/// In front of a refusal.
pub(crate) const FAILED: &str = "failed\n";
const LONGEST_ORDER: u64 = 256;
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
