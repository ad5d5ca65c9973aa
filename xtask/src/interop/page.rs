//! `interop page`: the page of the CA's admin listener in a real browser.

use std::fs;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::lab::Lab;
use crate::mesh::{Agent, Binaries, Ca, Workload};
use crate::{http, wait};

/// Debian's package has the first name, and others have others.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Far above what it takes, for machines that do other things too.
const LIMIT: Duration = Duration::from_secs(60);

/// What a caller says of itself, and what must be text on the page of whoever looks at it.
const HOSTILE: &str = "<b id=injected>eu</b>";

pub(crate) fn run(binaries: &Binaries) -> Result<()> {
    let Some(browser) = BROWSERS.into_iter().find(|name| is_there(name)) else {
        bail!("no browser: install the package chromium");
    };
    println!("\npage: the admin page in {browser}");
    Lab::run("interop-page", |lab| {
        let mut ca = Ca::start(lab, binaries)?;
        let page = load(lab, browser, ca.admin, "calm")?;
        let fingerprint = ca.fingerprint.trim_start_matches("SHA-256").trim();
        for part in [fingerprint, "ready", "self-signed", "none since the start"] {
            ensure!(
                page.contains(part),
                "the page does not show {part:?}:\n{page}"
            );
        }
        println!("  it shows the root {fingerprint}");

        let _stranger = Agent::start_stranger(lab, &ca, Workload::Cart, HOSTILE)?;
        wait::until("a refusal in /debug", LIMIT, || {
            let debug = http::get(ca.admin, "/debug")?.body;
            Ok(if debug.contains("\"refusals\": []") {
                ControlFlow::Continue("nobody was refused yet".to_owned())
            } else {
                ControlFlow::Break(())
            })
        })?;
        let page = load(lab, browser, ca.admin, "refusal")?;
        for part in [
            "nobody vouches for it",
            "client-certificate: not presented",
            "127.0.0.1:",
        ] {
            ensure!(
                page.contains(part),
                "the page does not show {part:?}:\n{page}"
            );
        }
        ensure!(
            page.contains("&lt;b id=injected&gt;") && !page.contains(HOSTILE),
            "what a caller says has become markup:\n{page}"
        );
        println!("  it shows who was refused and why, and what they say as text");
        ca.check()
    })?;
    println!("page: passed");
    Ok(())
}

fn is_there(name: &str) -> bool {
    let version = Command::new(name).arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// What the page is after its script has asked the server.
fn load(lab: &Lab, browser: &str, admin: SocketAddr, name: &str) -> Result<String> {
    let mut command = Command::new(browser);
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args(["--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync"])
        .arg(format!(
            "--user-data-dir={}",
            lab.path(format!("browser-{name}")).display()
        ))
        // Its own clock runs ahead while it waits for nothing but time.
        .args(["--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("http://{admin}/"));
    let log = format!("browser-{name}");
    let mut process = lab.start(&log, &mut command)?;
    let status = process.ended(LIMIT)?;
    let page = fs::read_to_string(lab.path("logs").join(format!("{log}.out")))
        .context("cannot read what the browser printed")?;
    ensure!(status.success(), "{browser} ended with {status}");
    Ok(page)
}
