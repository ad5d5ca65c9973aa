//! `sds-agent status`: asks a running agent how it is doing.

use std::{
    ffi::OsString,
    io::{self, Read as _, Write as _, stdout},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;

/// Carries out `status …`, if that is what these words after the program's name say. Succeeds if the
/// agent is ready.
pub fn status_command(words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut words = words.peekable();
    // No flag of the agent is such a word.
    if words.peek()? != "status" {
        return None;
    }
    let StatusArgs { admin } = StatusArgs::parse_from(words);
    Some(match AgentStatus::ask(admin) {
        Ok(status) => {
            // Nobody need be listening.
            let _ = write!(stdout(), "{}", status.report);
            if status.ready {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("sds-agent: no agent answers at {admin}: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Shows how a running agent is doing. Succeeds if it is ready.
#[derive(Clone, Debug, Parser)]
#[command(name = "sds-agent status")]
struct StatusArgs {
    /// Admin address of the agent.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15020")]
    admin: SocketAddr,
}

/// How an agent is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// Whether a valid certificate is served.
    pub ready: bool,
    /// For people.
    pub report: String,
}

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl AgentStatus {
    /// Asks the agent with this admin address.
    ///
    /// # Errors
    ///
    /// When nobody answers, or somebody who is no agent.
    pub fn ask(admin: SocketAddr) -> io::Result<Self> {
        let (status, readiness) = get(admin, "/readyz")?;
        let (_, details) = get(admin, "/debug/sds")?;
        let ready = status == 200;
        let word = if ready { "ready" } else { "not ready" };
        Ok(Self {
            ready,
            report: format!("{word}: {readiness}\n{details}"),
        })
    }
}

fn get(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "this is not an agent's answer");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(strange)?, body.to_owned()))
}
