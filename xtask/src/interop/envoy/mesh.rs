//! shop/cart asks through its Envoy, shop/checkout answers behind its own; each with an agent.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::backend::Backend;
use super::bootstrap::{self, Discovery, Secrets};
use super::sidecar::Sidecar;
use super::{House, Partners, Sabotage};
use crate::identity::{Identity, Leaf};
use crate::interop::proto_folder;
use crate::lab::Lab;
use crate::mesh::{Agent, Ca, TRUST_DOMAIN, Workload};
use crate::process::Process;
use crate::{http, tls, wait};

/// A whole request, so that Envoy answers it.
const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: checkout\r\nConnection: close\r\n\r\n";

/// What is not the same in all runs.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) discovery: Discovery,
    /// Of cart's certificates, which no run outlives unless it says so.
    pub(super) cart_lives: Duration,
    pub(super) checkout_lives: Duration,
    /// More flags for the CA.
    pub(super) ca: &'a [&'a OsStr],
    /// More flags for both agents.
    pub(super) agents: &'a [&'a OsStr],
    /// What takes the place of checkout's agent.
    pub(super) wrong: Option<Sabotage>,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Self {
            discovery: Discovery::default(),
            cart_lives: Duration::from_secs(3600),
            checkout_lives: Duration::from_secs(3600),
            ca: &[],
            agents: &[],
            wrong: None,
        }
    }
}

pub(super) struct Mesh<'a> {
    pub(super) ca: Ca<'a>,
    pub(super) cart: Agent,
    pub(super) checkout: Agent,
    wrong: Option<WrongServer>,
    pub(super) outbound: Sidecar,
    pub(super) inbound: Sidecar,
    pub(super) backend: Backend,
}

impl<'a> Mesh<'a> {
    /// Returns when requests can go through it.
    pub(super) fn start(house: &House<'a>, plan: Plan<'_>) -> Result<Self> {
        let ca = Ca::start_with(house.lab, house.binaries, plan.ca)?;
        let mut mesh = Self::around(house, plan, ca)?;
        mesh.opened(Duration::from_secs(20))?;
        Ok(mesh)
    }

    /// Around this CA, which may be down. The Envoys run then, and their listeners may not be open.
    pub(super) fn around(house: &House<'a>, plan: Plan<'_>, ca: Ca<'a>) -> Result<Self> {
        let (lab, envoy) = (house.lab, &house.partners.envoy);
        let agent = |workload, lives| Agent::start_with(lab, &ca, workload, lives, plan.agents);
        let cart = agent(Workload::Cart, plan.cart_lives)?;
        let mut checkout = agent(Workload::Checkout, plan.checkout_lives)?;
        let wrong = plan
            .wrong
            .map(|wrong| WrongServer::start(lab, house.partners, wrong, &mut checkout))
            .transpose()?;
        let checkout_socket = wrong
            .as_ref()
            .map_or(&checkout.socket, |wrong| &wrong.socket);

        let backend = Backend::start()?;
        let secrets = |socket| Secrets {
            socket,
            discovery: plan.discovery,
        };
        let config = bootstrap::inbound(
            "checkout",
            secrets(checkout_socket),
            backend.address,
            TRUST_DOMAIN,
        );
        let inbound = Sidecar::launch(lab, envoy, "envoy-checkout", &config)?;
        let server = bootstrap::Server {
            address: inbound.listener,
            id: Workload::Checkout.spiffe_id(),
            not_its_id: format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/payment"),
        };
        let config = bootstrap::outbound("cart", secrets(&cart.socket), &server);
        let outbound = Sidecar::launch(lab, envoy, "envoy-cart", &config)?;
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

    /// Returns when both listeners are open.
    pub(super) fn opened(&mut self, limit: Duration) -> Result<()> {
        self.inbound.opened(limit)?;
        self.outbound.opened(limit)
    }

    /// Is a client without a certificate let in?
    pub(super) fn anonymous_let_in(&mut self) -> Result<bool> {
        let own = self.cart.first_identity()?;
        let server = Workload::Checkout.spiffe_id();
        Ok(tls::connect_without_certificate(self.inbound.listener, &own, &server, PROBE).is_ok())
    }

    /// The status when the server is not the one that is expected there.
    pub(super) fn stranger_status(&self) -> Result<u16> {
        Ok(http::get(self.outbound.listener, "/stranger")?.status)
    }

    /// The certificate that the inbound Envoy shows, verified, to a client with this identity.
    pub(super) fn probe(&self, own: &Identity) -> Result<Leaf> {
        let server = Workload::Checkout.spiffe_id();
        Ok(tls::connect(self.inbound.listener, own, &server, PROBE)?.leaf)
    }

    /// Has both renew now, and waits until both new certificates are on the wire. **Only under
    /// load**: cart's is seen in its requests.
    pub(super) fn rotate(&mut self, limit: Duration) -> Result<()> {
        let (cart, checkout) = (self.cart.identity()?, self.checkout.identity()?);
        self.cart.renew()?;
        self.checkout.renew()?;
        self.cart.next_identity(&cart, limit)?;
        self.checkout.next_identity(&checkout, limit)?;
        self.on_the_wire(limit)
    }

    /// Waits until both Envoys use the newest certificates of their agents. **Only under load.**
    pub(super) fn on_the_wire(&mut self, limit: Duration) -> Result<()> {
        wait::until("newest certificates on the wire", limit, || {
            self.check()?;
            let (cart, checkout) = (self.cart.identity()?, self.checkout.identity()?);
            let shown = self.probe(&cart).context("a handshake of our own")?;
            let asked_with = self.backend.callers().latest;
            let server = (shown.serial, checkout.leaf.serial);
            let client = (asked_with, cart.leaf.serial);
            Ok(if server.0 == server.1 && client.0 == client.1 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(format!(
                    "server {} and not {}, client {} and not {}",
                    server.0, server.1, client.0, client.1
                ))
            })
        })
    }

    /// Neither Envoy has refused anything, and nobody unknown has come through.
    pub(super) fn is_clean(&self) -> Result<()> {
        let refused = self.secrets_refused()?;
        ensure!(refused == 0, "Envoy refused a secret {refused} times");
        let callers = self.backend.callers();
        let names: Vec<_> = callers.names.iter().map(String::as_str).collect();
        ensure!(
            callers.unnamed == 0 && names == [Workload::Cart.spiffe_id()],
            "the server saw clients named {names:?}, and {} requests without a name",
            callers.unnamed
        );
        Ok(())
    }

    /// Secrets that one of the Envoys refused.
    pub(super) fn secrets_refused(&self) -> Result<u64> {
        let counter = "update_rejected";
        Ok(self.inbound.counter(counter)? + self.outbound.counter(counter)?)
    }

    /// Everything still runs.
    pub(super) fn check(&mut self) -> Result<()> {
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
