//! A partner's program, which never outlives this process: not even when this one is killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The pipe on our side is its lifeline: when it closes, by our will or by our end, a shell beside the program ends it.
const LIFELINE: &str = r#"
    folder=$1; shift
    "$@" </dev/null &
    cat >/dev/null
    kill -KILL $!
    wait
    if [ -n "$folder" ]; then rm -rf -- "$folder"; fi
"#;

pub(crate) struct Watched {
    shell: Child,
    log: PathBuf,
}

impl Watched {
    /// Starts it, with all it says appended to the log. `folder` is removed after its end; nothing else would, when this process
    /// is killed.
    pub(crate) fn start(
        program: &Path,
        flags: &[String],
        log: PathBuf,
        folder: Option<&Path>,
    ) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let shell = Command::new("sh")
            .args(["-c", LIFELINE, "lifeline"])
            .arg(folder.unwrap_or(Path::new("")))
            .arg(program)
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { shell, log }
    }

    /// The end of what it said.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Until the program is gone and its port is free. Fails only when nobody is left to wait for.
        let _ = self.shell.wait();
    }
}
