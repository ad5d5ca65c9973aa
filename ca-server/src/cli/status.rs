//! `ca-server status`: how a running server is.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::answer::Answer;
use crate::args::StatusArgs;
use crate::control::{self, OrderError};
use crate::report::Report;

/// Yes if the server is ready.
pub(super) fn status(args: &StatusArgs, data_dir: &Path) -> Result<Answer, StatusError> {
    let json = match args.admin {
        None => control::order(data_dir, control::STATUS)?,
        Some(address) => get(address).map_err(|cause| StatusError::Admin { address, cause })?,
    };
    let report: Report = serde_json::from_str(&json)?;
    let text = if args.json { json } else { report.to_string() };
    Ok(if report.readiness.ready {
        Answer::yes(text)
    } else {
        Answer::no(text)
    })
}

fn get(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the end of the connection is the end of the answer.
    write!(stream, "GET /debug HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other("not an HTTP answer"))?;
    if head.split(' ').nth(1) != Some("200") {
        let status = head.lines().next().unwrap_or_default();
        let said = match body.trim() {
            "" => status.to_owned(),
            body => format!("{status}: {body}"),
        };
        return Err(io::Error::other(said));
    }
    Ok(body.into())
}

/// Why nothing is known of the server.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatusError {
    #[error(transparent)]
    Control(#[from] OrderError),
    #[error("http://{address}/debug: {cause}")]
    Admin {
        address: SocketAddr,
        cause: io::Error,
    },
    #[error("the server's answer is not a report of this version: {0}")]
    Report(#[from] serde_json::Error),
}

/// It answers at once, or hangs.
const PATIENCE: Duration = Duration::from_secs(10);
