//! `interop files`: nginx serves TLS from the files that an agent writes, and reloads them when they change,
//! while clients connect all the time.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::fact;
use crate::identity::Identity;
use crate::lab::Lab;
use crate::mesh::{self, Agent, Binaries, Ca, Workload};
use crate::process::Process;
use crate::{tls, wait, workspace};

/// The second where an ordinary user's shell does not look.
const PROGRAMS: [&str; 2] = ["nginx", "/usr/sbin/nginx"];

const LIFETIME: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(20);
const ROTATIONS: usize = 5;
/// A whole request, so that nginx answers it.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: checkout\r\nConnection: close\r\n\r\n";
/// Between two handshakes of a client.
const PAUSE: Duration = Duration::from_millis(3);

pub(super) fn run(binaries: &Binaries) -> Result<()> {
    let is_there = |name: &&str| workspace::output(workspace::command(name).arg("-v")).is_ok();
    let Some(nginx) = PROGRAMS.into_iter().find(is_there) else {
        println!("\nfiles: NOT RUN, because there is no nginx (Debian: nginx-light)");
        return Ok(());
    };
    println!("\nfiles: nginx, from an agent's output folder");
    Lab::run("interop-files", |lab| scenario(lab, binaries, nginx)).context("files")?;
    println!("files: passed");
    Ok(())
}

fn scenario(lab: &Lab, binaries: &Binaries, program: &str) -> Result<()> {
    let ca = Ca::start(lab, binaries)?;
    let mut checkout = Agent::start(lab, &ca, Workload::Checkout, LIFETIME)?;
    let mut cart = Agent::start(lab, &ca, Workload::Cart, LIFETIME)?;
    let client = cart.first_identity()?;
    checkout.first_identity()?;
    let (mut nginx, address) = nginx(lab, program, &checkout)?;
    // Its port is open some time after it has started.
    wait::until("nginx that listens", LIMIT, || {
        nginx.check()?;
        Ok(match serial(address, &client) {
            Ok(_) => ControlFlow::Break(()),
            Err(error) => ControlFlow::Continue(format!("{error:#}")),
        })
    })?;
    ensure!(
        tls::connect_without_certificate(address, &client, &server(), REQUEST).is_err(),
        "nginx does not ask for a certificate"
    );

    let stop = AtomicBool::new(false);
    let shakes = std::thread::scope(|scope| {
        let shaking = scope.spawn(|| shake(address, &client, &stop));
        let result = rotate(&mut checkout, &nginx, address, &client);
        // Before the `?`: the scope ends only when the client does.
        stop.store(true, Ordering::Relaxed);
        let shakes = match shaking.join() {
            Ok(shakes) => shakes,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        result.map(|()| shakes)
    })?;
    let (made, failed) = (shakes.made, shakes.failed);
    if let Some(first) = shakes.first_failure {
        bail!("{failed} of {made} handshakes failed: {first}");
    }
    ensure!(made > 0, "no handshake was made");
    fact("handshakes", format_args!("0 of {made} failed"));
    fact(
        "followed",
        format_args!("{ROTATIONS} rotations, each reloaded and seen on the wire"),
    );
    Ok(())
}

/// As an operator does it: something watches the files and tells nginx.
fn rotate(
    agent: &mut Agent,
    nginx: &Process,
    address: SocketAddr,
    client: &Identity,
) -> Result<()> {
    for _ in 0..ROTATIONS {
        let old = agent.identity()?;
        agent.renew()?;
        let new = agent.next_identity(&old, LIMIT)?.leaf.serial;
        nginx.signal("HUP")?;
        wait::until("new certificate from nginx", LIMIT, || {
            Ok(match serial(address, client)? {
                shown if shown == new => ControlFlow::Break(()),
                shown => ControlFlow::Continue(format!("it shows {shown}, and not {new}")),
            })
        })?;
    }
    Ok(())
}

#[derive(Default)]
struct Shakes {
    made: u64,
    failed: u64,
    first_failure: Option<String>,
}

/// Connects until told to stop.
fn shake(address: SocketAddr, client: &Identity, stop: &AtomicBool) -> Shakes {
    let mut shakes = Shakes::default();
    while !stop.load(Ordering::Relaxed) && wait::pause(PAUSE).is_ok() {
        shakes.made += 1;
        if let Err(error) = serial(address, client) {
            shakes.failed += 1;
            shakes
                .first_failure
                .get_or_insert_with(|| format!("{error:#}"));
        }
    }
    shakes
}

/// That of the certificate that nginx shows, which is verified, and answered for with a page.
fn serial(address: SocketAddr, client: &Identity) -> Result<String> {
    Ok(tls::connect(address, client, &server(), REQUEST)?
        .leaf
        .serial)
}

fn server() -> String {
    Workload::Checkout.spiffe_id()
}

/// Everything that it would keep elsewhere is in a folder of its own. Whoever it refuses gets no page (444).
fn nginx(lab: &Lab, program: &str, agent: &Agent) -> Result<(Process, SocketAddr)> {
    let address = mesh::free_address()?;
    let home = lab.path("nginx");
    std::fs::create_dir(&home).context("cannot make a folder for nginx")?;
    let (home, certs) = (home.display(), agent.output.display());
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {home}/{what};\n"))
        .concat();
    let config = format!(
        "daemon off;\nworker_processes 1;\npid {home}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\naccess_log off;\n{places}server {{\nlisten {address} ssl;\n\
         ssl_certificate {certs}/cert-chain.pem;\nssl_certificate_key {certs}/key.pem;\n\
         ssl_client_certificate {certs}/root-cert.pem;\nssl_verify_client on;\n\
         error_page 495 496 @refused;\nlocation @refused {{ return 444; }}\n\
         location / {{ return 200 \"the basket is checked out\\n\"; }}\n}}\n}}\n"
    );
    let config = lab.write("nginx.conf", config)?;
    let mut command = Command::new(program);
    command.arg("-e").arg("stderr").arg("-c").arg(config);
    Ok((lab.start("nginx", &mut command)?, address))
}
