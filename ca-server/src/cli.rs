//! What an operator types instead of serving: one file for each verb.

use std::process::ExitCode;

use crate::args::{Args, Command, Settings};

mod config;
mod explain;
pub(crate) mod policy;
mod rotate;
mod status;
pub(crate) mod token;

/// Does what was typed instead of serving. The exit code of a question is its answer.
///
/// # Errors
/// When it cannot be done.
pub fn run(command: Command, args: Args, settings: &Settings) -> anyhow::Result<ExitCode> {
    let data_dir = |own: Option<_>| own.unwrap_or_else(|| args.data_dir.clone());
    match command {
        Command::Token(mut token) => {
            let data_dir = data_dir(token.data_dir.take());
            token::print_token(&token, &data_dir)?;
        }
        Command::Rotate(rotate) => rotate::rotate(rotate.step, &data_dir(rotate.data_dir))?,
        Command::Status(mut status) => {
            let data_dir = data_dir(status.data_dir.take());
            return Ok(status::status(&status, &data_dir)?);
        }
        Command::Explain(explain) => return explain::explain(&explain, args),
        Command::Config => config::config(args, settings)?,
        Command::Policy(policy) => policy::policy(&policy, &args.trust_domain)?,
    }
    Ok(ExitCode::SUCCESS)
}
