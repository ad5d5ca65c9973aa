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

/// What a test has logged.
#[cfg(test)]
pub(crate) mod testing {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::DefaultGuard;

    /// Lines of this thread, in the form of `--log-format json`, until it is dropped.
    pub(crate) struct Log {
        text: Text,
        _guard: DefaultGuard,
    }

    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl Log {
        pub(crate) fn begin() -> Self {
            let text = Text::default();
            let writer = text.clone();
            let log = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::INFO)
                .with_writer(move || writer.clone())
                .json()
                .flatten_event(true)
                .finish();
            Self {
                text,
                _guard: tracing::subscriber::set_default(log),
            }
        }

        pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
            let text = String::from_utf8(self.text.0.lock().unwrap().clone()).unwrap();
            let lines = text.lines().map(serde_json::from_str);
            lines.collect::<Result<_, _>>().unwrap()
        }
    }

    impl io::Write for Text {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
