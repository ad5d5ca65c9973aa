//! What stands on an operator's screen: the line to type next, answers whose reader has gone, a token or the reason for none.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

use serde_json::json;

use crate::issuer::TokenKey;
use crate::running::{self, DEADLINE, Running};
use crate::serving::OperatorsFiles;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ca-server");

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_reader_who_has_gone_is_the_end_and_no_failure() {
    let ca = Running::start(&[]);
    let data_dir = ca.data_dir();
    let data_dir = data_dir.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, "own-identity = \"allow\"\n").unwrap();
    let policy = policy.to_str().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, ca.token(&[])).unwrap();
    let token = format!("@{}", token.display());
    let verbs: [&[&str]; 7] = [
        &["config"],
        &["status"],
        &["status", "--json"],
        &["rotate", "status"],
        &["explain", "--token", &token],
        &["policy", "check", policy],
        &["token", "--namespace", "a", "--service-account", "b"],
    ];
    for words in verbs {
        // Nobody reads, from before the program begins.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(PROGRAM);
        command.args(["--data-dir", data_dir]).args(words);
        let output = command.stdout(writer).stderr(Stdio::piped()).spawn();
        let output = output.unwrap().wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{words:?}: {said}"
        );
    }
    // Any other reason is one.
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut command = Command::new(PROGRAM);
    command.args(["--data-dir", data_dir, "status"]);
    let output = command.stdout(full.unwrap()).stderr(Stdio::piped()).spawn();
    let output = output.unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("ca-server: cannot write to standard output: "),
        "{said}"
    );
}

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

fn token(flags: &[&str]) -> Output {
    let words = ["token", "--namespace", "a", "--service-account", "b"];
    let mut command = Command::new(PROGRAM);
    command.args(flags).args(words).output().unwrap()
}

#[test]
fn a_token_that_nobody_takes_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.json");
    std::fs::write(
        &keys,
        json!({ "keys": [TokenKey::new("a").jwk()] }).to_string(),
    )
    .unwrap();
    let issuer = [
        "--token-issuer",
        "https://issuer.example",
        "--token-issuer-keys",
        keys.to_str().unwrap(),
    ];
    // The folder has a key for tokens, from the time when they were taken.
    let ca = Running::start(&[]);
    let before = ca.data_dir();
    let before = ["--data-dir", before.to_str().unwrap()];
    assert!(token(&before).status.success());
    // A server that runs is asked: it takes them, whatever is configured here.
    assert!(token(&[&before[..], &issuer].concat()).status.success());
    let (_, data) = ca.signal("TERM");
    let path = running::data_dir(&data);
    let data_dir = ["--data-dir", path.to_str().unwrap()];

    let told = |flags: &[&str], reason: &str| {
        let output = token(flags);
        assert_eq!(output.status.code(), Some(1), "{flags:?}");
        assert!(output.stdout.is_empty(), "{flags:?}");
        let said = text(&output.stderr);
        let expected = format!("the server takes no tokens of its own: it accepts {reason}");
        assert!(said.contains(&expected), "{flags:?} said {said:?}");
    };
    let configured = [&data_dir[..], &issuer].concat();
    told(&configured, "those of the issuers that are configured");
    let cluster = [&data_dir[..], &["--kubernetes"]].concat();
    told(&cluster, "those of service accounts of the cluster");
    let ca = Running::start_in(data, &issuer);
    let after = ca.data_dir();
    told(
        &["--data-dir", after.to_str().unwrap()],
        "those of https://issuer.example",
    );
    // Nor where there has never been a key.
    let ca = Running::start(&issuer);
    let fresh = ca.data_dir();
    told(
        &["--data-dir", fresh.to_str().unwrap()],
        "those of https://issuer.example",
    );
}
