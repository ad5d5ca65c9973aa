//! What is logged, and how. Always on standard error: standard output is for answers.

use std::io::IsTerminal as _;

use crate::args::{Args, LogFormat};

/// Begins to log. **Once in a process.**
pub fn start_logging(args: &Args) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(args.log_filter())
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        // One object in each line, with what a line is about as fields of its own.
        LogFormat::Json => log
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .init(),
    }
}
