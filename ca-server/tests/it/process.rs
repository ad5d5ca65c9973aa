//! Start, stop, crash, and everything that keeps it from starting.

use std::collections::HashSet;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use ca_core::TrustBundle;

use crate::client::{Client, key_and_csr};
use crate::running::{self, Running};

#[test]
fn it_is_alive_ready_and_counts_from_the_first_moment() {
    let ca = Running::start(&[]);
    assert_eq!(ca.get("/healthz").0, "HTTP/1.1 200 OK");
    assert_eq!(
        ca.get("/readyz"),
        ("HTTP/1.1 200 OK".into(), "ready\n".into())
    );
    assert!(
        ca.get("/metrics")
            .1
            .contains("\ncitadel_server_csr_count 0\n")
    );
    assert_eq!(ca.get("/nothing").0, "HTTP/1.1 404 Not Found");
}

#[test]
fn sigterm_and_sigint_drain_and_exit_0_and_the_root_stays() {
    let ca = Running::start(&[]);
    let root = ca.root_pem();
    let (status, folder) = ca.signal("TERM");
    assert!(status.success(), "{status}");
    let ca = Running::start_in(folder, &[]);
    assert_eq!(ca.root_pem(), root);
    assert!(ca.signal("INT").0.success());
}

#[test]
fn whoever_says_nothing_to_the_admin_listener_keeps_nobody_from_being_answered() {
    let ca = Running::start(&[]);
    // More than are kept.
    let silent: Vec<_> = (0..300)
        .map(|_| TcpStream::connect(&ca.admin).unwrap())
        .collect();
    assert_eq!(ca.get("/healthz").0, "HTTP/1.1 200 OK");
    let mut oldest = &silent[0];
    oldest.set_read_timeout(Some(running::DEADLINE)).unwrap();
    assert_eq!(oldest.read(&mut [0]).unwrap(), 0, "given up for the newest");
    let start = Instant::now();
    assert!(ca.signal("TERM").0.success());
    assert!(start.elapsed() < Duration::from_secs(5));
}

// With a thread for the client, which has to answer the server's farewell while this one waits.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_does_not_hold_up_the_end() {
    // Its own deadlines are ten seconds, for the handshake and for the beginning of HTTP/2.
    let ca = Running::start(&["--shutdown-duration", "1m"]);
    let silent = TcpStream::connect(&ca.serving).unwrap();
    let (half, root) = (ca.serving.clone(), ca.root_pem());
    let half = crate::serving::connect(&half, &root, &["h2"])
        .await
        .unwrap();
    // Those before it have been accepted when this one is answered.
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    client.ask(&key_and_csr(&[]).1, 0).await.unwrap();
    drop(client);
    let start = Instant::now();
    assert!(ca.signal("TERM").0.success());
    assert!(start.elapsed() < Duration::from_secs(5));
    drop((silent, half));
}

#[test]
fn killed_at_any_moment_of_its_start_it_comes_back_with_the_same_root() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = running::data_dir(&folder);
    let mut root: Option<String> = None;
    let mut killed_before_a_root = 0;
    // From before the first file to long after the last, in steps that are shorter than a file takes.
    for microseconds in (0..30_000).step_by(400) {
        let mut child = running::spawn(&data_dir, &[]);
        // Waits for an announcement that may come or not: this is the only clock the kill can go by.
        running::announcement(&mut child, Duration::from_micros(microseconds));
        running::send_signal(&child, "KILL");
        child.wait().unwrap();
        match (
            &root,
            std::fs::read_to_string(data_dir.join("root-cert.pem")),
        ) {
            (None, Ok(pem)) => root = Some(pem),
            (Some(root), pem) => {
                assert_eq!(*root, pem.unwrap(), "another root after {microseconds} µs");
            }
            (None, Err(_)) => killed_before_a_root += 1,
        }
    }
    let ca = Running::start_in(folder, &[]);
    assert_eq!(root.unwrap_or(ca.root_pem()), ca.root_pem());
    assert!(
        killed_before_a_root > 0,
        "no kill came early enough to prove anything"
    );
    TrustBundle::from_pem(ca.root_pem().as_bytes()).unwrap();
    ca.token(&[]);
}

/// Each way to fail: the flags, and what the one line must name.
#[test]
fn what_keeps_it_from_starting_is_told_in_one_line_with_a_non_zero_exit() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (
            &["--listen", &taken],
            &format!("cannot listen on {taken}: Address already in use"),
        ),
        (
            &["--admin-listen", &taken],
            &format!("cannot listen on {taken}: Address already in use"),
        ),
        (&["--data-dir", file], &format!("data folder: {file}: ")),
        (
            &["--token-issuer-keys", file],
            &format!("token issuer keys {file}: "),
        ),
        (
            &["--default-workload-cert-ttl", "3000h"],
            "default TTL 3000h0m0s is greater than the max",
        ),
        (&["--trust-domain", "UPPER"], "not a trust domain"),
        (&["--max-workload-cert-ttl", "90"], "not a duration: \"90\""),
        (&["--no-such-flag"], "--no-such-flag"),
    ];
    for (flags, named) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ca-server"));
        command.arg("--data-dir").arg(folder.path().join("data"));
        if flags[0] == "--data-dir" {
            command = Command::new(env!("CARGO_BIN_EXE_ca-server"));
        }
        if !flags.iter().any(|f| f.ends_with("listen")) {
            command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        } else if flags[0] == "--admin-listen" {
            command.args(["--listen", "127.0.0.1:0"]);
        } else {
            command.args(["--admin-listen", "127.0.0.1:0"]);
        }
        let child = command
            .args(*flags)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (status, text) = running::wait_for_failure(child);
        assert!(!status.success(), "{flags:?}");
        assert!(text.contains(named), "{flags:?} said {text:?}");
        assert!(!text.contains("panicked"), "{text}");
        let mut said = HashSet::new();
        assert!(
            text.trim().split(": ").all(|part| said.insert(part)),
            "something is said twice: {text}"
        );
    }
}

#[test]
fn an_unreadable_data_folder_is_told_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = running::data_dir(&folder);
    std::fs::create_dir(&data_dir).unwrap();
    std::fs::write(data_dir.join("authority"), "in the way").unwrap();
    std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o500)).unwrap();
    let (status, text) = running::wait_for_failure(running::spawn(&data_dir, &[]));
    assert!(!status.success());
    assert!(
        text.lines().count() == 1 && text.contains(data_dir.to_str().unwrap()),
        "{text}"
    );
}

#[test]
fn a_second_server_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let ca = Running::start(&[]);
    let (status, text) = running::wait_for_failure(running::spawn(&ca.data_dir(), &[]));
    assert!(!status.success());
    assert!(text.contains("in use by another process"), "{text}");
    assert_eq!(ca.get("/readyz").0, "HTTP/1.1 200 OK");
}

#[test]
fn a_damaged_key_is_told_by_its_file_and_left_as_it_is() {
    let ca = Running::start(&[]);
    let (_, folder) = ca.signal("TERM");
    let key = running::data_dir(&folder).join("authority/0000000001/ca-key.pem");
    std::fs::write(&key, "junk").unwrap();
    let (status, text) =
        running::wait_for_failure(running::spawn(&running::data_dir(&folder), &[]));
    assert!(!status.success());
    assert!(text.contains(key.to_str().unwrap()), "{text}");
    let mut content = String::new();
    std::fs::File::open(&key)
        .unwrap()
        .read_to_string(&mut content)
        .unwrap();
    assert_eq!(content, "junk");
}

#[test]
fn a_token_without_a_ca_says_what_to_do_first() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ca-server"))
        .args([
            "token",
            "--namespace",
            "a",
            "--service-account",
            "b",
            "--data-dir",
        ])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("start ca-server with this --data-dir first"),
        "{text}"
    );
}
