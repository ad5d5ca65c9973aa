//! The temporary folder of one run. It goes with the run, except that a failed run's logs are kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::process::{self, Process};
use crate::workspace;

pub(crate) struct Lab {
    directory: TempDir,
}

impl Lab {
    /// Runs the body in a fresh folder. When it fails, the logs are kept and their ends shown.
    pub(crate) fn run<T>(name: &str, body: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        // Short, because a socket's path may have 107 bytes and no more.
        let directory =
            TempDir::with_prefix("mesh-ca-").context("cannot make a temporary folder")?;
        let lab = Self { directory };
        fs::create_dir(lab.logs()).context("cannot make a folder for logs")?;
        let result = body(&lab).and_then(|value| lab.no_panic().map(|()| value));
        if result.is_err()
            && let Err(error) = lab.keep_logs(name)
        {
            // Said, but not in place of what went wrong first.
            eprintln!("no logs: {error:#}");
        }
        result
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    pub(crate) fn start(&self, name: &str, command: &mut Command) -> Result<Process> {
        Process::start(
            name,
            command.current_dir(self.directory.path()),
            &self.logs(),
        )
    }

    fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    /// A program that lost one of its threads may still look well from outside.
    fn no_panic(&self) -> Result<()> {
        for path in self.log_files()? {
            let log = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let log = String::from_utf8_lossy(&log);
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                bail!("{}: {line}", path.display());
            }
        }
        Ok(())
    }

    fn keep_logs(&self, name: &str) -> Result<()> {
        let kept = workspace::cache("logs")?.join(name);
        // What an earlier run left there would only mislead.
        let _ = fs::remove_dir_all(&kept);
        fs::create_dir_all(&kept).with_context(|| format!("cannot create {}", kept.display()))?;
        for path in self.log_files()? {
            let Some(file) = path.file_name() else {
                continue;
            };
            fs::copy(&path, kept.join(file)).context("cannot keep a log")?;
            let tail = process::tail(&path);
            if !tail.is_empty() {
                eprintln!("the end of {}:\n{tail}", file.display());
            }
        }
        eprintln!("whole logs: {}", kept.display());
        Ok(())
    }

    fn log_files(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.logs()).context("cannot list the logs")?;
        let mut files = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .context("cannot list the logs")?;
        files.sort();
        Ok(files)
    }
}
