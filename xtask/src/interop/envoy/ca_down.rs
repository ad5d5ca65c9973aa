//! The CA is down for three half-lives of a certificate. Requests go through until the certificates have
//! truly ended, and again within one back-off after the CA is back.

use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};

use super::House;
use super::load::under_load;
use super::mesh::{Mesh, Plan};
use crate::identity::Identity;
use crate::interop::clock;
use crate::interop::fact;
use crate::mesh::Agent;
use crate::{http, wait};

const LIFETIME: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(30);
/// For an attempt, an answer and a push, beside the back-off before them.
const ATTEMPT: Duration = Duration::from_secs(4);

pub(super) fn run(house: &House<'_>) -> Result<()> {
    let plan = Plan {
        cart_lives: LIFETIME,
        checkout_lives: LIFETIME,
        ..Plan::default()
    };
    let mut mesh = Mesh::start(house, plan)?;
    let (outage, load) = under_load(mesh.outbound.listener, |_| outage(house, &mut mesh))?;

    let failed = load.failed_at.context(
        "no request failed although both certificates had ended: this load notices nothing",
    )?;
    ensure!(
        failed >= outage.end,
        "the first request failed {} ms before the first certificate ended: {}",
        clock::between(failed, outage.end).as_millis(),
        load.first_failures.join("; ")
    );
    let ((), after) = under_load(mesh.outbound.listener, |_| mesh.rotate(LIMIT))?;
    mesh.is_clean()?;
    fact(
        "until the end",
        format_args!(
            "0 failed; the first {} ms after it, with the CA down for {:.1} s",
            clock::between(outage.end, failed).as_millis(),
            outage.lasted.as_secs_f64()
        ),
    );
    fact(
        "CA back",
        format_args!(
            "good answers after {:.1} s, next attempts due within {:.1} s",
            outage.recovery.as_secs_f64(),
            outage.due.as_secs_f64()
        ),
    );
    fact("requests after it", after.flawless()?);
    Ok(())
}

/// What was seen of it.
struct Outage {
    lasted: Duration,
    /// When the first certificate ended.
    end: SystemTime,
    /// From the time when the CA was back to the next attempts.
    due: Duration,
    /// From the time when the CA was back to a good answer.
    recovery: Duration,
}

fn outage(house: &House<'_>, mesh: &mut Mesh<'_>) -> Result<Outage> {
    // Both at their beginning.
    mesh.rotate(LIMIT)?;
    mesh.ca.kill()?;
    let down = Instant::now();
    let (cart, checkout) = (mesh.cart.identity()?, mesh.checkout.identity()?);
    let end = end(&cart).min(end(&checkout));
    wait::until("end of the first certificate", LIFETIME * 2, || {
        let left = clock::between(clock::now(), end);
        // A handshake takes a moment, too.
        if left > Duration::from_millis(500) {
            let shown = mesh.probe(&cart)?.serial;
            ensure!(
                shown == checkout.leaf.serial,
                "the certificate was replaced"
            );
        }
        Ok(if left.is_zero() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(format!("{} ms are left", left.as_millis()))
        })
    })?;
    wait::until("end of three half-lives", LIFETIME * 2, || {
        Ok(if down.elapsed() >= LIFETIME / 2 * 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue("not yet".to_owned())
        })
    })?;

    mesh.ca.start_again(house.lab)?;
    let (lasted, back) = (down.elapsed(), clock::now());
    let due = next_attempt(&mesh.cart)?.max(next_attempt(&mesh.checkout)?);
    let due = clock::between(back, due);
    wait::until("good answer", due + ATTEMPT, || {
        let answer = http::get(mesh.outbound.listener, "/")?.status;
        Ok(if answer == 200 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(format!("status {answer}"))
        })
    })?;
    Ok(Outage {
        lasted,
        end,
        due,
        recovery: clock::between(back, clock::now()),
    })
}

fn end(identity: &Identity) -> SystemTime {
    clock::from_seconds(identity.leaf.not_after)
}

fn next_attempt(agent: &Agent) -> Result<SystemTime> {
    let page = agent.page("/debug/sds")?;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("next attempt"));
    // It is told in whole seconds.
    Ok(clock::parse(line.context("no next attempt")?.trim())? + Duration::from_secs(1))
}
