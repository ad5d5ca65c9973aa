//! What an operator types instead of serving: one file for each verb.

use std::process::ExitCode;

use crate::args::{Args, Command, Settings};
use crate::output;

use answer::Answer;

mod answer;
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
    let answer = match command {
        Command::Token(mut token) => {
            let data_dir = data_dir(token.data_dir.take());
            Answer::yes(token::token(&token, &data_dir, args.others_tokens())?)
        }
        Command::Rotate(rotate) => {
            Answer::yes(rotate::rotate(rotate.step, &data_dir(rotate.data_dir))?)
        }
        Command::Status(mut status) => {
            let data_dir = data_dir(status.data_dir.take());
            status::status(&status, &data_dir)?
        }
        Command::Explain(explain) => explain::explain(&explain, args)?,
        Command::Config => {
            // Before it is judged: what is wrong is found in it.
            output::print(settings)?;
            config::check(args)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Policy(policy) => Answer::yes(policy::policy(&policy, &args.trust_domain)?),
    };
    Ok(answer.print()?)
}
