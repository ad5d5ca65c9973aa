//! What a verb has to say.

use std::fmt;
use std::process::ExitCode;

use crate::output::{self, OutputError};

/// The text for standard output, and the exit code, which is the answer to a question.
#[derive(Debug)]
pub(super) struct Answer {
    text: String,
    code: ExitCode,
}

impl Answer {
    pub(super) fn yes(text: impl fmt::Display) -> Self {
        Self {
            text: text.to_string(),
            code: ExitCode::SUCCESS,
        }
    }

    pub(super) fn no(text: impl fmt::Display) -> Self {
        Self {
            text: text.to_string(),
            code: ExitCode::FAILURE,
        }
    }

    pub(super) fn print(self) -> Result<ExitCode, OutputError> {
        output::print(&self.text)?;
        Ok(self.code)
    }
}
