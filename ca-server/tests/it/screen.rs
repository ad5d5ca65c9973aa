//! What stands on an operator's screen: the line to type next.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use crate::running::{self, DEADLINE};
use crate::serving::OperatorsFiles;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ca-server");

/// The line that the server has for the agent.
fn next_line(cargo: bool, flags: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .args(["--admin-listen", "127.0.0.1:0", "--data-dir"])
        .arg(running::data_dir(&folder))
        .args(flags)
        // Of the one that runs this test.
        .env_remove("CARGO_MANIFEST_DIR")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if cargo {
        command.env("CARGO_MANIFEST_DIR", "ca-server");
    }
    let mut child = command.spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        for line in lines.filter(|line| line.contains("sds-agent")) {
            // The test has what it wants, or is over.
            let _ = sender.send(line);
        }
    });
    let line = receiver.recv_timeout(DEADLINE);
    child.kill().unwrap();
    child.wait().unwrap();
    line.expect("no line in time")
}

#[test]
fn the_line_to_type_next_can_be_typed() {
    let line = next_line(false, &["--listen", "0.0.0.0:0"]);
    assert!(line.starts_with("  ca-server token --data-dir "), "{line}");
    assert!(
        line.contains(" && sds-agent --ca-addr localhost:"),
        "{line}"
    );
    assert!(line.contains("/data/root-cert.pem "), "{line}");
    let line = next_line(true, &["--listen", "127.0.0.1:0"]);
    assert!(
        line.starts_with("  cargo run --release --bin ca-server -- token "),
        "{line}"
    );
    assert!(line.contains(" --ca-addr 127.0.0.1:"), "{line}");

    let files = OperatorsFiles::new();
    let mut flags = files.flags();
    flags.push("--listen=127.0.0.1:0".into());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let line = next_line(false, &flags);
    // The certificate in the files is for this name alone.
    assert!(line.contains(" --ca-addr localhost:"), "{line}");
    let roots = format!(" --ca-root {} ", files.path("ca.crt").display());
    assert!(line.contains(&roots), "{line}");
}
