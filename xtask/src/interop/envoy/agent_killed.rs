//! Both agents are killed under load. Envoy goes on with what it has, takes up with the next agent by
//! itself, and follows that one's rotations.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::House;
use super::load::under_load;
use super::mesh::{Mesh, Plan};
use crate::interop::fact;

const LIMIT: Duration = Duration::from_secs(30);
/// While no agent is there.
const ANSWERS_WITHOUT: u64 = 200;

pub(super) fn run(house: &House<'_>) -> Result<()> {
    let mut mesh = Mesh::start(house, Plan::default())?;
    let (back, load) = under_load(mesh.outbound.listener, |load| {
        mesh.on_the_wire(LIMIT)?;
        let (cart, checkout) = (mesh.cart.identity()?, mesh.checkout.identity()?);
        mesh.cart.process.kill()?;
        mesh.checkout.process.kill()?;
        load.goes_on(ANSWERS_WITHOUT, LIMIT)?;
        let shown = mesh.probe(&cart)?.serial;
        ensure!(
            shown == checkout.leaf.serial && mesh.backend.callers().latest == cart.leaf.serial,
            "an Envoy has let go of its certificate without its agent"
        );

        mesh.cart.start_again(house.lab)?;
        mesh.checkout.start_again(house.lab)?;
        let started = Instant::now();
        // They were written by the agents that are gone.
        mesh.cart.next_identity(&cart, LIMIT)?;
        mesh.checkout.next_identity(&checkout, LIMIT)?;
        mesh.on_the_wire(LIMIT)?;
        let back = started.elapsed();
        mesh.rotate(LIMIT)?;
        load.goes_on(1, LIMIT)?;
        Ok(back)
    })?;
    mesh.is_clean()?;
    fact("requests", load.flawless()?);
    fact(
        "without agents",
        format_args!("{ANSWERS_WITHOUT} answers, with the certificates of before"),
    );
    fact(
        "with new agents",
        format_args!(
            "their certificates on the wire after {:.1} s, and the next rotation too",
            back.as_secs_f64()
        ),
    );
    Ok(())
}
