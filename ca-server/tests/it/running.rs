//! The program as a child process: started on free ports in a folder of its own, killed when the test ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A CA that answers.
pub(crate) struct Running {
    child: Child,
    pub(crate) serving: String,
    pub(crate) admin: String,
    announced: Vec<String>,
    folder: TempDir,
}

impl Running {
    /// Starts with a fresh folder.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), flags)
    }

    /// Starts in a folder that may have a past.
    pub(crate) fn start_in(folder: TempDir, flags: &[&str]) -> Self {
        let mut child = spawn(&data_dir(&folder), flags);
        let lines = announcement(&mut child, DEADLINE).expect("no announcement in time");
        drain(child.stderr.take());
        Self {
            serving: announced(&lines, "serving"),
            admin: announced(&lines, "admin"),
            announced: lines,
            child,
            folder,
        }
    }

    /// What stands behind `key` in the announcement.
    pub(crate) fn announced(&self, key: &str) -> String {
        announced(&self.announced, key)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        data_dir(&self.folder)
    }

    pub(crate) fn root_pem(&self) -> String {
        std::fs::read_to_string(self.data_dir().join("root-cert.pem")).unwrap()
    }

    /// A token as an operator makes it.
    pub(crate) fn token(&self, flags: &[&str]) -> String {
        self.token_of("shop", "cart", flags)
    }

    /// The same for any workload.
    pub(crate) fn token_of(&self, namespace: &str, account: &str, flags: &[&str]) -> String {
        let output = Command::new(PROGRAM)
            .args([
                "token",
                "--namespace",
                namespace,
                "--service-account",
                account,
            ])
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(flags)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "nothing but the token is printed");
        text.trim().to_owned()
    }

    /// Sends a signal by its name and waits for the end.
    pub(crate) fn signal(mut self, name: &str) -> (ExitStatus, TempDir) {
        send_signal(&self.child, name);
        (wait(&mut self.child), self.take_folder())
    }

    fn take_folder(&mut self) -> TempDir {
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// One page of the admin listener: status line and body.
    pub(crate) fn get(&self, path: &str) -> (String, String) {
        self.get_as(path, &self.admin)
    }

    /// The same under another name of the host.
    pub(crate) fn get_as(&self, path: &str, host: &str) -> (String, String) {
        let (head, body) = self.ask_for(path, host);
        (head.lines().next().unwrap().to_owned(), body)
    }

    /// One page with its whole head.
    pub(crate) fn get_whole(&self, path: &str) -> (String, String) {
        self.ask_for(path, &self.admin)
    }

    fn ask_for(&self, path: &str, host: &str) -> (String, String) {
        use std::io::Write as _;
        let mut stream = std::net::TcpStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn announced(lines: &[String], key: &str) -> String {
    let line = lines.iter().find(|line| line.starts_with(key));
    let line = line.expect("an announced value");
    line[key.len()..].trim().to_owned()
}

pub(crate) fn data_dir(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

pub(crate) fn spawn(data_dir: &Path, flags: &[&str]) -> Child {
    let mut command = Command::new(PROGRAM);
    for listener in ["--listen", "--admin-listen"] {
        if !flags.contains(&listener) {
            command.args([listener, "127.0.0.1:0"]);
        }
    }
    command
        .arg("--data-dir")
        .arg(data_dir)
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What the program says up to the empty line behind its addresses; `None` if it does not in time.
pub(crate) fn announcement(child: &mut Child, deadline: Duration) -> Option<Vec<String>> {
    let stdout = child.stdout.take().unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // The test has what it wants, or is over.
            let _ = sender.send(line);
        }
    });
    let end = Instant::now() + deadline;
    let mut lines = Vec::new();
    loop {
        match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.is_empty() => return Some(lines),
            Ok(line) => lines.push(line),
            Err(_) => return None,
        }
    }
}

/// Reads a log to its end: a server whose log nobody reads comes to a halt when the pipe is full.
fn drain(log: Option<ChildStderr>) {
    let Some(mut log) = log else { return };
    // Ends with the program.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
}

pub(crate) fn send_signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// The end of a program that should end by itself, with what it said on standard error.
pub(crate) fn wait_for_failure(mut child: Child) -> (ExitStatus, String) {
    let status = wait(&mut child);
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    (status, text)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the system tells of a child's end only when asked"
)]
fn wait(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < end, "the program did not end in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_ca-server");
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
