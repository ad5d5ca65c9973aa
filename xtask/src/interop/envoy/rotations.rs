//! Rotations under load, each of them looked for on the wire. Also with a server that is wrong: then
//! the findings must say so.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::bootstrap::Discovery;
use super::findings::{Findings, Probes};
use super::load::under_load;
use super::mesh::{Mesh, Plan};
use super::{House, Sabotage};
use crate::wait;

/// Renewed by itself at half of it, besides the renewals that are asked for.
const LIFETIME: Duration = Duration::from_secs(8);
/// For all the wanted rotations; a run ends as soon as it has seen them.
const LIMIT: Duration = Duration::from_secs(90);
/// A control never sees what would end it.
const CONTROL_LIMIT: Duration = Duration::from_secs(4);
const PROBE_EVERY: Duration = Duration::from_millis(50);

/// With agents of ours.
pub(super) fn run(house: &House<'_>, discovery: Discovery) -> Result<()> {
    let findings = observe(house, discovery, None)?;
    print!("{findings}");
    let faults = findings.faults();
    ensure!(faults.is_empty(), "failed\n{}", super::list(&faults));
    Ok(())
}

/// Until enough rotations have been seen, or the time is over.
pub(super) fn observe(
    house: &House<'_>,
    discovery: Discovery,
    wrong: Option<Sabotage>,
) -> Result<Findings> {
    let plan = Plan {
        discovery,
        cart_lives: LIFETIME,
        checkout_lives: LIFETIME,
        wrong,
        ..Plan::default()
    };
    let limit = wrong.map_or(LIMIT, |_| CONTROL_LIMIT);
    let mut mesh = Mesh::start(house, plan)?;
    let stranger_status = mesh.stranger_status()?;
    let anonymous_let_in = mesh.anonymous_let_in()?;
    if wrong.is_none() {
        let page = mesh.checkout.page("/debug/sds")?;
        let name = discovery.name();
        ensure!(page.contains(name), "no stream of kind {name:?}:\n{page}");
    }
    let started = Instant::now();
    let mut probes = Probes::default();
    let ((), load) = under_load(mesh.outbound.listener, |_| {
        // How much had been seen when a renewal was last asked for.
        let mut asked_at = None;
        while started.elapsed() < limit && !Findings::enough(&mesh.backend.callers(), &probes) {
            mesh.check()?;
            let own = mesh.cart.identity()?;
            probes.add(mesh.probe(&own));
            let seen = (mesh.backend.callers().serials.len(), probes.serials.len());
            // Both have changed since: one rotation after the other, so that each of them is seen.
            if asked_at.is_none_or(|(client, server)| seen.0 > client && seen.1 > server) {
                mesh.cart.renew()?;
                mesh.checkout.renew()?;
                asked_at = Some(seen);
            }
            wait::pause(PROBE_EVERY)?;
        }
        Ok(())
    })?;
    Ok(Findings {
        load,
        callers: mesh.backend.callers(),
        probes,
        anonymous_let_in,
        stranger_status,
        secrets_refused: mesh.secrets_refused()?,
        took: started.elapsed(),
    })
}
