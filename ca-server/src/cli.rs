//! What an operator types instead of serving: one file for each verb.

use std::process::ExitCode;

use crate::args::{Args, Command};

pub(crate) mod policy;
mod rotate;
mod status;
pub(crate) mod token;

/// Does what was typed instead of serving. The exit code of a question is its answer.
///
/// # Errors
/// When it cannot be done.
pub fn run(command: &Command, args: &Args) -> anyhow::Result<ExitCode> {
    let data_dir = |own: &Option<_>| own.clone().unwrap_or_else(|| args.data_dir.clone());
    match command {
        Command::Token(token) => token::print_token(token, &data_dir(&token.data_dir))?,
        Command::Rotate(rotate) => rotate::rotate(rotate.step, &data_dir(&rotate.data_dir))?,
        Command::Status(status) => return Ok(status::status(status, &data_dir(&status.data_dir))?),
        Command::Policy(policy) => policy::policy(policy)?,
    }
    Ok(ExitCode::SUCCESS)
}
