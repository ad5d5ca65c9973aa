//! What a server goes by is replaced under load, one thing after the other, and no request notices.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::server::{Cores, START_LIMIT, Server, read};
use super::{Bench, Finding, number};
use crate::wait;
use crate::workspace;

/// Between two replacements, at least: long enough for thousands of requests.
const BETWEEN: Duration = Duration::from_millis(1500);
const STEPS: u32 = 5;
const POLICY: &str = "[[limit]]\nname = \"fleet\"\nidentities = [\"/ns/fleet/**\"]\nmax-ttl = ";

pub(super) fn run(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let material = bench.lab.path("material");
    workspace::run(
        workspace::command(&bench.fleet)
            .arg("material")
            .arg(&material),
    )?;
    let live = bench.lab.path("live");
    let put = |from: &Path, to: &str| replace(from, &live.join(to));
    fs::create_dir(&live).context("cannot make a folder")?;
    for file in ["ca-cert.pem", "ca-key.pem", "cert-chain.pem"] {
        put(&material.join("a").join(file), file)?;
    }
    // Its root alone, to begin with.
    put(&material.join("roots-a.pem"), "root-cert.pem")?;
    put(&material.join("issuer-a.json"), "issuers.json")?;
    let policy = |hours: u32| {
        bench
            .lab
            .write("policy.toml", format!("{POLICY}\"{hours}h\"\n"))
    };
    let policy_file = policy(24)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut server = Server::start(
        bench,
        "replaced",
        Cores::All,
        &[
            "--root-ca-dir",
            &text(&live),
            "--token-issuer",
            "mesh-ca-local",
            "--token-issuer-keys",
            &text(&live.join("issuers.json")),
            "--policy",
            &text(&policy_file),
        ],
    )?;
    println!("\nreplacements under load");
    let (mut command, summary) = server.driver(bench, Cores::All, "load");
    let seconds = f64::from(STEPS + 1) * BETWEEN.as_secs_f64();
    command
        .arg("--ca-root")
        .arg(material.join("roots.pem"))
        .arg("--token-key")
        .arg(material.join("issuer-a.pem"))
        .args(["--workloads", "200", "--certified", "0.5", "--fresh", "0.2"])
        .args(["--in-flight", "16", "--duration", &format!("{seconds}s")])
        .stdin(std::process::Stdio::null());
    let mut load = bench.lab.start("load", &mut command)?;
    // Client roots: those of both CAs. Then the CA with its key, and with it the server's own certificate.
    let steps: [&dyn Fn() -> Result<()>; STEPS as usize] = [
        &|| put(&material.join("b/root-cert.pem"), "root-cert.pem"),
        &|| {
            // The files belong together, and are followed together: what does not fit yet is not used.
            for file in ["ca-cert.pem", "ca-key.pem", "cert-chain.pem"] {
                put(&material.join("b").join(file), file)?;
            }
            Ok(())
        },
        &|| policy(12).map(drop),
        &|| put(&material.join("issuers.json"), "issuers.json"),
        // Two at once: the token's key is still among them.
        &|| {
            policy(6)?;
            put(&material.join("issuer-a.json"), "issuers.json")
        },
    ];
    for step in steps {
        pause(BETWEEN)?;
        server.check()?;
        step()?;
    }
    let status = load.ended(START_LIMIT + BETWEEN)?;
    ensure!(status.success(), "the driver: {status}");
    // Or nothing has been shown.
    let bundles = server.metric("mesh_ca_bundle_generation")?;
    ensure!(
        bundles >= 3.0,
        "the server signed from {bundles} bundles, not from three"
    );
    let summary = read(&summary)?;
    let (issued, failed) = (number(&summary, "/issued")?, number(&summary, "/failed")?);
    Ok(vec![Finding {
        target: "plugged-in CA, own certificate, client roots, policy and JWKS replaced under load",
        asked: "0 failed".to_owned(),
        measured: format!(
            "{failed:.0} failed, {issued:.0} issued; {}",
            summary["failures"]
        ),
        met: failed == 0.0 && issued > 0.0,
    }])
}

/// As an operator does it: another file under the same name.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let beside = to.with_extension("new");
    fs::copy(from, &beside)
        .and_then(|_| fs::rename(&beside, to))
        .with_context(|| format!("cannot replace {}", to.display()))
}

fn pause(time: Duration) -> Result<()> {
    let end = std::time::Instant::now() + time;
    while std::time::Instant::now() < end {
        wait::pause(Duration::from_millis(50))?;
    }
    Ok(())
}
