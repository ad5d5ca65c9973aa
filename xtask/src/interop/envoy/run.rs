//! One run: CA, agents, Envoys, requests, and a look at each handshake.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::backend::Backend;
use super::findings::{Findings, Probes};
use super::load::{self, Tally};
use super::sidecar::Sidecar;
use super::{Partners, Sabotage, bootstrap};
use crate::http;
use crate::interop::proto_folder;
use crate::lab::Lab;
use crate::mesh::{Agent, Binaries, Ca, TRUST_DOMAIN, Workload};
use crate::process::Process;
use crate::{tls, wait};

/// Renewed at half of it: every few seconds.
const SECRET_TTL: Duration = Duration::from_secs(8);
const WORKERS: usize = 2;
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// A whole request, so that Envoy answers it.
const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: checkout\r\nConnection: close\r\n\r\n";

/// shop/cart asks through its Envoy, shop/checkout answers behind its own.
pub(super) struct Mesh<'a> {
    ca: Ca<'a>,
    cart: Agent,
    checkout: Agent,
    wrong: Option<WrongServer>,
    outbound: Sidecar,
    inbound: Sidecar,
    backend: Backend,
}

impl<'a> Mesh<'a> {
    pub(super) fn start(
        lab: &Lab,
        binaries: &'a Binaries,
        partners: &Partners,
        wrong: Option<Sabotage>,
    ) -> Result<Self> {
        let ca = Ca::start(lab, binaries)?;
        let cart = Agent::start(lab, &ca, Workload::Cart, SECRET_TTL)?;
        let mut checkout = Agent::start(lab, &ca, Workload::Checkout, SECRET_TTL)?;
        let wrong = wrong
            .map(|wrong| WrongServer::start(lab, partners, wrong, &mut checkout))
            .transpose()?;
        let checkout_socket = wrong
            .as_ref()
            .map_or(&checkout.socket, |wrong| &wrong.socket);

        let backend = Backend::start()?;
        let config = bootstrap::inbound("checkout", checkout_socket, backend.address, TRUST_DOMAIN);
        let inbound = Sidecar::start(lab, &partners.envoy, "envoy-checkout", &config)?;
        let server = bootstrap::Server {
            address: inbound.listener,
            id: Workload::Checkout.spiffe_id(),
            not_its_id: format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/payment"),
        };
        let config = bootstrap::outbound("cart", &cart.socket, &server);
        let outbound = Sidecar::start(lab, &partners.envoy, "envoy-cart", &config)?;
        Ok(Self {
            ca,
            cart,
            checkout,
            wrong,
            outbound,
            inbound,
            backend,
        })
    }

    /// Until enough rotations have been seen, or the time is over.
    pub(super) fn observe(mut self, limit: Duration) -> Result<Findings> {
        let stranger_status = http::get(self.outbound.listener, "/stranger")?.status;
        let anonymous_let_in = self.anonymous()?;
        let started = Instant::now();
        let mut probes = Probes::default();
        let load = under_load(self.outbound.listener, || {
            while started.elapsed() < limit && !Findings::enough(&self.backend.callers(), &probes) {
                self.probe(&mut probes)?;
                self.check()?;
                wait::pause(PROBE_EVERY)?;
            }
            Ok(())
        })?;
        let refused = "update_rejected";
        Ok(Findings {
            load,
            callers: self.backend.callers(),
            probes,
            anonymous_let_in,
            stranger_status,
            secrets_refused: self.inbound.counter(refused)? + self.outbound.counter(refused)?,
            took: started.elapsed(),
        })
    }

    /// Is a client without a certificate let in?
    fn anonymous(&mut self) -> Result<bool> {
        let own = self.cart.first_identity()?;
        let server = Workload::Checkout.spiffe_id();
        Ok(tls::connect_without_certificate(self.inbound.listener, &own, &server, PROBE).is_ok())
    }

    /// A handshake of our own, which verifies the certificate that the inbound Envoy shows.
    fn probe(&mut self, probes: &mut Probes) -> Result<()> {
        let own = self.cart.identity()?;
        probes.made += 1;
        match tls::connect(
            self.inbound.listener,
            &own,
            &Workload::Checkout.spiffe_id(),
            PROBE,
        ) {
            Ok(peer) if !probes.serials.contains(&peer.leaf.serial) => {
                probes.serials.push(peer.leaf.serial);
            }
            Ok(_) => {}
            Err(error) => {
                probes.failures += 1;
                probes
                    .first_failure
                    .get_or_insert_with(|| format!("{error:#}"));
            }
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        self.ca.check()?;
        self.cart.check()?;
        self.checkout.check()?;
        self.inbound.check()?;
        self.outbound.check()?;
        self.wrong
            .as_mut()
            .map_or(Ok(()), |wrong| wrong.process.check())
    }
}

/// What the workers counted while the body ran.
fn under_load(address: SocketAddr, body: impl FnOnce() -> Result<()>) -> Result<Tally> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| scope.spawn(|| load::run(address, &stop)))
            .collect();
        let result = body();
        // Before the `?`: the scope ends only when the workers do.
        stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for worker in workers {
            match worker.join() {
                Ok(part) => tally.add(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result.map(|()| tally)
    })
}

/// In the place of shop/checkout's agent, which goes on beside it and supplies the material.
struct WrongServer {
    socket: PathBuf,
    process: Process,
}

impl WrongServer {
    fn start(
        lab: &Lab,
        partners: &Partners,
        sabotage: Sabotage,
        agent: &mut Agent,
    ) -> Result<Self> {
        agent.first_identity()?;
        let socket = lab.path("wrong.sock");
        let mut command = partners.python.script("wrong_sds.py");
        command
            .arg(sabotage.name())
            .arg(&agent.output)
            .arg(&socket)
            .arg(proto_folder());
        let mut process = lab.start("wrong-sds", &mut command)?;
        process.printed("serving", Duration::from_secs(20))?;
        Ok(Self { socket, process })
    }
}
