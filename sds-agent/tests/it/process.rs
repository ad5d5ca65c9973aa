//! The program itself: what it prints, how it ends.

use std::{
    path::Path,
    process::{Output, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{
    agent::{Agent, Home, soon},
    ca::Ca,
};

fn command(home: &Home, ca: &Ca, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sds-agent"));
    command
        .args(home.flags(ca, more))
        .env_clear()
        .kill_on_drop(true);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn fails(command: &mut Command) -> String {
    let Output { status, stderr, .. } = soon("it ends", command.output()).await.unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(
        !status.success() && !stderr.contains("panicked"),
        "{stderr}"
    );
    stderr
}

#[tokio::test]
async fn it_says_where_it_serves_and_ends_well_when_told_to() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let mut agent = command(&home, &ca, &[]).spawn().unwrap();
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    for _ in 0..5 {
        said.push(soon("a line", lines.next_line()).await.unwrap().unwrap());
    }
    assert!(said[0].starts_with("mesh-ca sds-agent "));
    assert_eq!(
        said[1],
        "identity           spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert_eq!(said[2], format!("certificates from  {}", ca.address));
    assert_eq!(
        said[3],
        format!("serving            {}", home.path("run/socket").display())
    );
    let port = said[4]
        .strip_prefix("admin              127.0.0.1:")
        .unwrap();
    assert_ne!(port, "0");

    soon("a certificate", ca.asked(1)).await;
    signal(&agent, "HUP").await;
    soon("a renewal", ca.asked(1)).await;
    signal(&agent, "TERM").await;
    assert!(soon("the end", agent.wait()).await.unwrap().success());
}

#[tokio::test]
async fn status_is_a_command() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    agent.becomes("/readyz", |status, _| status == 200).await;
    let ask = |admin: String| async move {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sds-agent"));
        command.args(["status", "--admin", &admin]).env_clear();
        soon("a status", command.output()).await.unwrap()
    };
    let told = ask(agent.admin.to_string()).await;
    assert!(told.status.success());
    let report = String::from_utf8(told.stdout).unwrap();
    assert!(
        report.starts_with("ready: certificate until 20"),
        "{report}"
    );
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let told = ask(free).await;
    assert!(!told.status.success() && told.stdout.is_empty());
    assert!(String::from_utf8_lossy(&told.stderr).contains("no agent answers at"));
}

async fn signal(agent: &Child, name: &str) {
    let id = agent.id().unwrap().to_string();
    let sent = Command::new("kill")
        .args(["-s", name, &id])
        .status()
        .await
        .unwrap();
    assert!(sent.success());
}

#[tokio::test]
async fn what_cannot_work_is_one_line_and_a_failure() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let missing = home.path("missing");
    let missing = missing.to_str().unwrap();
    std::fs::write(home.path("garbage"), "garbage").unwrap();
    let garbage = home.path("garbage");
    let garbage = garbage.to_str().unwrap();
    let below_a_file = format!("{garbage}/folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (flag, value, reason) in [
        ("--ca-root", missing, "cannot read the CA's roots"),
        ("--ca-root", garbage, "are not certificates"),
        ("--token-file", missing, "cannot read the token file"),
        ("--socket", garbage, "is not a socket"),
        (
            "--output-dir",
            below_a_file.as_str(),
            "cannot write to the output folder",
        ),
        (
            "--admin-listen",
            taken.as_str(),
            "cannot listen on the admin address",
        ),
        ("--namespace", "a/b", "not a SPIFFE ID"),
        ("--secret-ttl", "10ms", "below one second"),
    ] {
        let stderr = fails(&mut replacing(&home, &ca, flag, value)).await;
        assert!(
            stderr.contains(reason) && stderr.lines().count() == 1,
            "{flag}: {stderr}"
        );
        if Path::new(value).is_absolute() {
            assert!(stderr.contains(value), "{stderr}");
        }
    }
    for (flag, value, reason) in [
        ("--ca-addr", "http://ca:15012", "over https only"),
        ("--ca-addr", "ca", "expected host:port"),
        ("--secret-ttl", "soon", "soon"),
        ("--admin-listen", "here", "here"),
    ] {
        let stderr = fails(&mut replacing(&home, &ca, flag, value)).await;
        let first = stderr.lines().next().unwrap_or_default();
        assert!(first.contains(reason), "{flag}: {stderr}");
    }
}

#[tokio::test]
async fn without_a_ca_there_must_be_mounted_certificates() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let flags = home.flags(&ca, &[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sds-agent"));
    command.args(&flags[2..]).env_clear().stdin(Stdio::null());
    let stderr = fails(&mut command).await;
    assert!(stderr.contains("--ca-addr is needed"), "{stderr}");
}

/// The usual flags, but for one.
fn replacing(home: &Home, ca: &Ca, flag: &str, value: &str) -> Command {
    let mut flags = home.flags(ca, &[]);
    match flags.iter().position(|known| known == flag) {
        Some(at) => flags[at + 1] = value.to_owned(),
        None => flags.extend([flag.to_owned(), value.to_owned()]),
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_sds-agent"));
    command.args(flags).env_clear().stdin(Stdio::null());
    command
}
