//! `interop workload-api`: an application without Envoy, which takes its identity from the agent's socket
//! with the library that Python has for that.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::fact;
use crate::identity::Identity;
use crate::lab::Lab;
use crate::mesh::{Agent, Binaries, Ca, TRUST_DOMAIN, Workload};
use crate::process::Process;
use crate::tls;
use crate::venv::Venv;

const LIBRARY: &str = "spiffe==0.3.2";

const LIFETIME: Duration = Duration::from_secs(3600);
/// Python takes a while to start.
const LIMIT: Duration = Duration::from_secs(30);
const ROTATIONS: usize = 3;

pub(super) fn run(binaries: &Binaries) -> Result<()> {
    let python = Venv::with("spiffe", &[LIBRARY])?;
    println!("\nworkload-api: {LIBRARY} for Python");
    Lab::run("interop-workload-api", |lab| {
        scenario(lab, binaries, &python)
    })
    .context("workload-api")?;
    println!("workload-api: passed");
    Ok(())
}

fn scenario(lab: &Lab, binaries: &Binaries, python: &Venv) -> Result<()> {
    let ca = Ca::start(lab, binaries)?;
    let mut checkout = Agent::start(lab, &ca, Workload::Checkout, LIFETIME)?;
    let mut cart = Agent::start(lab, &ca, Workload::Cart, LIFETIME)?;
    let folder = lab.path("application");
    let mut application = python.script("workload_api.py");
    application.arg(&cart.socket).arg(&folder);
    let mut application = lab.start("application", &mut application)?;

    let bundles = application.printed("bundles", LIMIT)?;
    ensure!(
        bundles == format!("{TRUST_DOMAIN} 1"),
        "not the roots of one trust domain: {bundles}"
    );
    let server = checkout.first_identity()?;
    let mut own = told(&mut application, 1)?;
    for number in 1..=ROTATIONS + 1 {
        ensure!(
            own == cart.workload.spiffe_id(),
            "the application is {own}, and not {}",
            cart.workload
        );
        let got = Identity::read(&folder.join(number.to_string()))?;
        let held = cart.identity()?;
        ensure!(
            got.leaf.serial == held.leaf.serial,
            "the application has serial {}, and the agent {}",
            got.leaf.serial,
            held.leaf.serial
        );
        // Key, chain and roots as the library has written them down, against a workload that trusts the CA.
        tls::handshake(&got, &own, &server, &checkout.workload.spiffe_id())
            .context("a handshake with the application's identity")?;
        if number <= ROTATIONS {
            cart.renew()?;
            cart.next_identity(&held, LIMIT)?;
            own = told(&mut application, number + 1)?;
        }
    }
    fact("identity", &own);
    fact("roots", bundles);
    fact(
        "followed",
        format_args!("{ROTATIONS} rotations, each good for mutual TLS"),
    );
    Ok(())
}

/// Whom the application says that it is, the n-th time.
fn told(application: &mut Process, number: usize) -> Result<String> {
    application.printed(&format!("identity {number} "), LIMIT)
}
