//! `demo`: a CA, two workloads, mutual TLS between them and a live rotation, in a few seconds.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::identity::Identity;
use crate::lab::Lab;
use crate::mesh::{Agent, Binaries, Ca, TRUST_DOMAIN, Workload};
use crate::tls;
use crate::wait;

/// Short, so that a rotation comes while one watches.
const SECRET_TTL: Duration = Duration::from_secs(6);

/// Shows everything once; then stays up until Ctrl-C unless told to do it only once.
pub(crate) fn run(binaries: &Binaries, once: bool) -> Result<()> {
    Lab::run("demo", |lab| {
        let started = Instant::now();
        let mut mesh = start(lab, binaries)?;
        show(&mut mesh)?;
        println!("\ndemo passed: 5 of 5 steps in {}", took(started));
        if once {
            return Ok(());
        }
        stay(lab, &mut mesh)
    })
}

struct Mesh<'a> {
    ca: Ca<'a>,
    cart: Agent,
    checkout: Agent,
}

fn start<'a>(lab: &Lab, binaries: &'a Binaries) -> Result<Mesh<'a>> {
    let begin = Instant::now();
    let ca = Ca::start(lab, binaries)?;
    step(1, "a CA with a root of its own", begin);
    println!("     trust domain       {TRUST_DOMAIN}");
    println!("     root fingerprint   {}", ca.fingerprint);
    let begin = Instant::now();
    let mut cart = Agent::start(lab, &ca, Workload::Cart, SECRET_TTL)?;
    let mut checkout = Agent::start(lab, &ca, Workload::Checkout, SECRET_TTL)?;
    let identities = [
        (Workload::Cart, cart.first_identity()?),
        (Workload::Checkout, checkout.first_identity()?),
    ];
    step(
        2,
        "two agents, each with a certificate signed by that CA",
        begin,
    );
    for (workload, identity) in &identities {
        println!("     {workload:<18} serial {}", identity.leaf.serial);
    }
    let begin = Instant::now();
    for (workload, identity) in &identities {
        check_name(*workload, identity)?;
    }
    step(
        3,
        "each certificate names its workload and nothing else",
        begin,
    );
    for (_, identity) in &identities {
        println!("     {}", identity.leaf.names.join(", "));
    }
    Ok(Mesh { ca, cart, checkout })
}

fn show(mesh: &mut Mesh<'_>) -> Result<()> {
    let begin = Instant::now();
    let [cart, checkout] = [mesh.cart.identity()?, mesh.checkout.identity()?];
    let handshake = shake_hands(&cart, &checkout)?;
    refuse_a_stranger(&cart, &checkout)?;
    step(
        4,
        "mutual TLS between the two, each checking the other's SPIFFE ID",
        begin,
    );
    println!("     {handshake}");
    println!("     a server that is not the one asked for is refused");

    let begin = Instant::now();
    let renewed_cart = mesh.cart.next_identity(&cart, SECRET_TTL * 2)?;
    let renewed_checkout = mesh.checkout.next_identity(&checkout, SECRET_TTL * 2)?;
    check_name(Workload::Cart, &renewed_cart)?;
    check_name(Workload::Checkout, &renewed_checkout)?;
    let handshake = shake_hands(&renewed_cart, &renewed_checkout)?;
    step(
        5,
        "a live rotation of both, and mutual TLS with the new certificates",
        begin,
    );
    for (workload, old, new) in [
        (Workload::Cart, &cart, &renewed_cart),
        (Workload::Checkout, &checkout, &renewed_checkout),
    ] {
        println!(
            "     {workload:<18} serial {} -> {}",
            old.leaf.serial, new.leaf.serial
        );
    }
    println!("     {handshake}");
    println!(
        "     (a certificate lives {} s here, so that one can watch)",
        SECRET_TTL.as_secs()
    );
    Ok(())
}

fn stay(lab: &Lab, mesh: &mut Mesh<'_>) -> Result<()> {
    println!(
        "\nstill running; Ctrl-C ends it and removes {}",
        lab.path("").display()
    );
    println!(
        "  CA                   {} (admin http://{})",
        mesh.ca.address, mesh.ca.admin
    );
    println!(
        "  root certificate     {}",
        mesh.ca.root_certificate.display()
    );
    for agent in [&mesh.cart, &mesh.checkout] {
        println!(
            "  {:<20} socket {}",
            agent.workload.to_string(),
            agent.socket.display()
        );
        println!("  {:<20} files  {}", "", agent.output.display());
    }
    wait::until_stopped(|| {
        mesh.ca.check()?;
        mesh.cart.check()?;
        mesh.checkout.check()
    })
}

fn check_name(workload: Workload, identity: &Identity) -> Result<()> {
    let expected = workload.spiffe_id();
    let names = &identity.leaf.names;
    ensure!(
        identity.leaf.is_only(&expected),
        "{workload} was given {names:?}, not {expected}"
    );
    Ok(())
}

fn shake_hands(cart: &Identity, checkout: &Identity) -> Result<String> {
    let begin = Instant::now();
    let (cart_id, checkout_id) = (Workload::Cart.spiffe_id(), Workload::Checkout.spiffe_id());
    let (server, client) = tls::handshake(cart, &cart_id, checkout, &checkout_id)
        .context("mutual TLS between shop/cart and shop/checkout")?;
    Ok(format!(
        "{:?} in {}: client {} <-> server {}",
        server.version,
        took(begin),
        client.leaf.names.join(", "),
        server.leaf.names.join(", ")
    ))
}

fn refuse_a_stranger(cart: &Identity, checkout: &Identity) -> Result<()> {
    let stranger = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/payment");
    let result = tls::handshake(cart, &Workload::Cart.spiffe_id(), checkout, &stranger);
    ensure!(
        result.is_err(),
        "the client took shop/checkout for {stranger}"
    );
    Ok(())
}

fn step(number: u32, what: &str, begin: Instant) {
    println!("{number}/5  {what} ({})", took(begin));
}

fn took(begin: Instant) -> String {
    let took = begin.elapsed();
    if took < Duration::from_secs(1) {
        format!("{:.1} ms", took.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", took.as_secs_f64())
    }
}
