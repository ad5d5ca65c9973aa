//! A child process that never outlives its guard, with its output in files.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::{http, wait, workspace};

const TAIL_LINES: usize = 15;

/// Killed on drop.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Standard output goes to `<logs>/<name>.out`, standard error to `<logs>/<name>.log`.
    pub(crate) fn start(name: &str, command: &mut Command, logs: &Path) -> Result<Self> {
        let stdout = logs.join(format!("{name}.out"));
        let stderr = logs.join(format!("{name}.log"));
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot create {}", path.display()))
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(create(&stdout)?)
            .stderr(create(&stderr)?)
            // Its own group: Ctrl-C reaches us alone, and we end the children in our own order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        })
    }

    /// What the system calls it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by name, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let id = self.child.id().to_string();
        workspace::run(workspace::command("kill").args(["-s", name, "--", &id]))
    }

    /// Ends it as a crash would: it can neither notice nor tidy up.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let name = &self.name;
        let context = || format!("cannot end {name}");
        self.child.kill().with_context(context)?;
        self.child.wait().with_context(context)?;
        Ok(())
    }

    /// What it has written to standard error so far.
    pub(crate) fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.stderr)
            .with_context(|| format!("cannot read {}", self.stderr.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// An error, with the end of its log, when it is no longer there.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait().context("cannot look at a child")? else {
            return Ok(());
        };
        bail!(
            "{} ended by itself: {status}\n{}",
            self.name,
            tail(&self.stderr)
        );
    }

    /// How it ended, for one that ends by itself.
    pub(crate) fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("end of {}", self.name);
        wait::until(&what, limit, || {
            Ok(
                match self.child.try_wait().context("cannot look at a child")? {
                    Some(status) => ControlFlow::Break(status),
                    None => ControlFlow::Continue("it still runs".to_owned()),
                },
            )
        })
    }

    /// The rest of the first line on standard output that starts with this label.
    pub(crate) fn printed(&mut self, label: &str, limit: Duration) -> Result<String> {
        let what = format!("line `{label}` from {}", self.name);
        wait::until(&what, limit, || {
            // Read before the check, so that what it printed before it ended still counts.
            let text = fs::read_to_string(&self.stdout)
                .with_context(|| format!("cannot read {}", self.stdout.display()))?;
            let complete = text.rfind('\n').map_or("", |end| &text[..end]);
            if let Some(rest) = complete.lines().find_map(|line| line.strip_prefix(label)) {
                return Ok(ControlFlow::Break(rest.trim().to_owned()));
            }
            self.check()?;
            Ok(ControlFlow::Continue(
                "it has not printed it yet".to_owned(),
            ))
        })
    }

    /// Returns when its admin page gives a 200.
    pub(crate) fn answers(&mut self, admin: SocketAddr, path: &str, limit: Duration) -> Result<()> {
        let what = format!("200 for {path} from {}", self.name);
        wait::until(&what, limit, || {
            self.check()?;
            Ok(match http::get(admin, path) {
                Ok(page) if page.status == 200 => ControlFlow::Break(()),
                Ok(page) => {
                    ControlFlow::Continue(format!("{} {}", page.status, page.body.trim_end()))
                }
                Err(error) => ControlFlow::Continue(format!("{error:#}")),
            })
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a log, indented.
pub(crate) fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let start = lines.len().saturating_sub(TAIL_LINES);
    lines[start..]
        .iter()
        .map(|line| format!("    | {line}\n"))
        .collect()
}
