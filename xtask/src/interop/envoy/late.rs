//! The CA starts after the Envoys. Their listeners stay closed, and open as soon as there is a
//! certificate.

use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::House;
use super::load::under_load;
use super::mesh::{Mesh, Plan};
use crate::interop::clock;
use crate::interop::fact;
use crate::mesh::{Agent, Ca};
use crate::wait;

const LIMIT: Duration = Duration::from_secs(40);

pub(super) fn run(house: &House<'_>) -> Result<()> {
    // Once before, for its root and for tokens.
    let mut ca = Ca::start(house.lab, house.binaries)?;
    ca.kill()?;
    let mut mesh = Mesh::around(house, Plan::default(), ca)?;
    for agent in [&mesh.cart, &mesh.checkout] {
        wait::until("Envoy that waits for secrets", LIMIT, || waits(agent))?;
    }
    let early = (
        is_open(mesh.inbound.listener),
        is_open(mesh.outbound.listener),
    );
    ensure!(
        early == (false, false),
        "a listener is open before there is a certificate"
    );
    let said = mesh.inbound.readiness()?;

    mesh.ca.start_again(house.lab)?;
    mesh.opened(LIMIT)?;
    let opened = clock::now();
    let obtained =
        |agent: &Agent| clock::line_time(&agent.process.log()?, "obtained a certificate");
    let last = obtained(&mesh.cart)?.max(obtained(&mesh.checkout)?);
    let ((), load) = under_load(mesh.outbound.listener, |_| mesh.rotate(LIMIT))?;
    mesh.is_clean()?;
    fact(
        "without a CA",
        format_args!("closed, and Envoy says {said}"),
    );
    fact(
        "open",
        format_args!(
            "at most {} ms after the last certificate",
            clock::between(last, opened).as_millis()
        ),
    );
    fact("requests", load.flawless()?);
    Ok(())
}

/// Has it been asked for both secrets, and has it asked the CA in vain?
fn waits(agent: &Agent) -> Result<ControlFlow<(), String>> {
    let page = agent.page("/debug/sds")?;
    let streams = page.matches("  waits").count();
    Ok(if streams >= 2 && page.contains("last error") {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(page)
    })
}

fn is_open(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}
