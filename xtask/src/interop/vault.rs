//! `interop vault`: the agent with HashiCorp Vault, whose PKI engine signs for it.

mod api;
mod kubernetes;
mod login;
mod pki;
mod server;

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::api::Api;
use self::kubernetes::Cluster;
use self::login::Issuer;
use self::server::Vault;
use super::{fact, openssl};
use crate::control_plane::{ControlPlane, ControlPlaneArgs};
use crate::identity::Identity;
use crate::lab::Lab;
use crate::mesh::{Agent, Binaries, Workload};
use crate::{tls, wait};

const LIFETIME: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(40);
const ROTATIONS: usize = 3;

/// Long enough that a busy machine does not sleep through the last third, in which it is renewed.
const LEASE: Duration = Duration::from_secs(18);
const SHORT_LIFETIME: Duration = Duration::from_secs(6);

pub(super) fn run(binaries: &Binaries, control_plane: &ControlPlaneArgs) -> Result<()> {
    let program = server::program()?;
    let control_plane = ControlPlane::find(control_plane)?;
    println!("\nvault: HashiCorp Vault with its PKI engine");
    let partners = Partners {
        vault: &program,
        control_plane: &control_plane,
    };
    Lab::run("interop-vault", |lab| scenario(lab, binaries, &partners)).context("vault")?;
    println!("vault: passed");
    Ok(())
}

/// Programs of others.
struct Partners<'a> {
    vault: &'a Path,
    control_plane: &'a ControlPlane,
}

fn scenario(lab: &Lab, binaries: &Binaries, partners: &Partners<'_>) -> Result<()> {
    let mut vault = Vault::start(lab, partners.vault)?;
    fact("version", &vault.version);
    let api = vault.api.clone();
    let issuer = Issuer::set_up(lab, &api)?;
    let names = [
        login::name_template(&api, "jwt")?,
        login::name_template(&api, "kubernetes")?,
    ];
    let root = pki::set_up(&api, &names)?;
    let site = Site {
        lab,
        binaries,
        api: &api,
        root: lab.write("root.pem", root)?,
    };

    let jwt = lab.write("cart.token", issuer.token(Workload::Cart)?)?;
    let mut cart = site.log_in(&jwt, pki::SIGN, LIFETIME)?;
    let mut checkout = own_token(&site)?;
    logged_in(&site, &mut cart, &mut checkout)?;
    revoked(&site, &mut cart)?;
    forbidden(&site, &mut cart)?;
    sealed(&vault, &mut cart, &mut checkout)?;
    stopped(lab, &mut vault, &mut cart)?;
    drop(cart);
    drop(checkout);
    leased(&site, &issuer, &jwt)?;
    refused(&site, &issuer)?;
    without_root(&site, &jwt)?;
    by_service_account(&site, partners.control_plane)
}

/// Where agents are started, and what they must trust.
struct Site<'a> {
    lab: &'a Lab,
    binaries: &'a Binaries,
    api: &'a Api,
    root: PathBuf,
}

impl Site<'_> {
    /// The cart's agent, which logs in with the JWT in this file.
    fn log_in(&self, token: &Path, sign: &str, lifetime: Duration) -> Result<Agent> {
        self.log_in_at(login::JWT, token, sign, lifetime)
    }

    fn log_in_at(&self, path: &str, token: &Path, sign: &str, lifetime: Duration) -> Result<Agent> {
        let login = ["--vault-login-path", path, "--vault-role", login::ROLE];
        self.agent(Workload::Cart, token, sign, lifetime, &login)
    }

    fn agent(
        &self,
        workload: Workload,
        token: &Path,
        sign: &str,
        lifetime: Duration,
        more: &[&str],
    ) -> Result<Agent> {
        let address = format!("https://{}", self.api.address);
        let mut flags: Vec<&OsStr> = vec![
            "--ca-addr".as_ref(),
            address.as_ref(),
            "--ca-provider".as_ref(),
            "Vault".as_ref(),
            "--ca-root".as_ref(),
            self.api.roots.as_ref(),
            "--token-file".as_ref(),
            token.as_ref(),
            "--vault-sign-path".as_ref(),
            sign.as_ref(),
        ];
        flags.extend(more.iter().map(OsStr::new));
        Agent::start_elsewhere(self.lab, self.binaries, workload, lifetime, &flags)
    }

    /// Its first certificate, judged by OpenSSL against the root that Vault made: neither the agent nor we are asked.
    fn first(&self, agent: &mut Agent) -> Result<Identity> {
        let identity = agent.first_identity()?;
        self.judge(agent, &identity)?;
        Ok(identity)
    }

    fn judge(&self, agent: &Agent, identity: &Identity) -> Result<()> {
        let id = agent.workload.spiffe_id();
        ensure!(
            identity.leaf.is_only(&id),
            "a certificate for {:?}, not {id}",
            identity.leaf.names
        );
        let chain = agent.output.join("cert-chain.pem");
        openssl::verify(&chain, &chain, &self.root)?;
        let served = std::fs::read_to_string(agent.output.join("root-cert.pem"))
            .context("no root-cert.pem")?;
        let made = std::fs::read_to_string(&self.root).context("no root")?;
        ensure!(
            served.trim() == made.trim(),
            "the roots are not Vault's:\n{served}"
        );
        Ok(())
    }
}

/// An agent whose token file has a token of Vault's own, which it renews.
fn own_token(site: &Site<'_>) -> Result<Agent> {
    let (token, accessor) = login::own_token(site.api)?;
    let token = site.lab.write("checkout.token", token)?;
    let mut checkout = site.agent(
        Workload::Checkout,
        &token,
        pki::SIGN_CHECKOUT,
        LIFETIME,
        &[],
    )?;
    site.first(&mut checkout)?;
    wait::until("renewed token", LIMIT, || {
        let known = login::look_up(site.api, &accessor)?;
        Ok(if known["last_renewal_time"].is_null() {
            ControlFlow::Continue(format!("not renewed: {known}"))
        } else {
            ControlFlow::Break(())
        })
    })?;
    fact("own token", "a certificate, and the token is renewed");
    Ok(checkout)
}

/// Rotations with one login, each good for mutual TLS with somebody else below the same root.
fn logged_in(site: &Site<'_>, cart: &mut Agent, checkout: &mut Agent) -> Result<()> {
    let mut held = site.first(cart)?;
    let server = checkout.identity()?;
    for _ in 0..ROTATIONS {
        cart.renew()?;
        held = cart.next_identity(&held, LIMIT)?;
        site.judge(cart, &held)?;
        let [client, peer] = [&*cart, &*checkout].map(|agent| agent.workload.spiffe_id());
        tls::handshake(&held, &client, &server, &peer).context("a handshake")?;
    }
    let logins = login::logins(site.api)?.len();
    ensure!(logins == 1, "{logins} logins for one agent");
    fact(
        "logged in",
        format_args!("{ROTATIONS} rotations with one login, each good for mutual TLS"),
    );
    Ok(())
}

fn revoked(site: &Site<'_>, cart: &mut Agent) -> Result<()> {
    let held = cart.identity()?;
    let old = login::logins(site.api)?;
    for login in &old {
        login::revoke(site.api, login)?;
    }
    cart.renew()?;
    cart.next_identity(&held, LIMIT)?;
    let new = login::logins(site.api)?;
    ensure!(
        new.len() == 1 && new != old,
        "not one new login: {new:?} after {old:?}"
    );
    fact("revoked login", "made again, once");
    Ok(())
}

/// The certificate stays, the reason is shown, and what is refused leaves no logins behind.
fn forbidden(site: &Site<'_>, cart: &mut Agent) -> Result<()> {
    let held = cart.identity()?;
    login::forbid(site.api)?;
    cart.renew()?;
    let told = still_ready(cart, "refused: HTTP 403: ")?;
    ensure!(told.contains("permission denied"), "{told}");
    // Until it has tried a few times.
    wait::until("further attempts", LIMIT, || {
        let attempts = cart.process.log()?.matches("cannot renew").count();
        Ok(if attempts < 4 {
            ControlFlow::Continue(format!("{attempts} attempts"))
        } else {
            ControlFlow::Break(())
        })
    })?;
    let logins = login::logins(site.api)?.len();
    ensure!(logins <= 1, "{logins} logins are left behind");
    ensure!(
        cart.identity()?.leaf == held.leaf,
        "the certificate has not stayed"
    );
    login::allow(site.api)?;
    cart.next_identity(&held, LIMIT)?;
    fact("forbidden", reason(&told));
    Ok(())
}

fn sealed(vault: &Vault, cart: &mut Agent, checkout: &mut Agent) -> Result<()> {
    let held = [cart.identity()?, checkout.identity()?];
    vault.seal()?;
    let mut told = String::new();
    for agent in [&mut *cart, &mut *checkout] {
        agent.renew()?;
        told = still_ready(agent, "refused: HTTP 503: ")?;
    }
    vault.unseal()?;
    for (agent, held) in [cart, checkout].into_iter().zip(&held) {
        agent.next_identity(held, LIMIT)?;
    }
    fact(
        "sealed",
        format_args!("{}; recovered by itself", reason(&told)),
    );
    Ok(())
}

fn stopped(lab: &Lab, vault: &mut Vault, cart: &mut Agent) -> Result<()> {
    let held = cart.identity()?;
    vault.kill()?;
    cart.renew()?;
    let told = still_ready(cart, "cannot connect to ")?;
    // With another certificate below another CA, which is in the file that the agent has for it.
    vault.start_again(lab)?;
    vault.unseal()?;
    cart.next_identity(&held, LIMIT)?;
    fact(
        "stopped",
        format_args!("{}; recovered by itself", reason(&told)),
    );
    Ok(())
}

/// A login that lasts no longer than a few certificates is renewed, and not made again.
fn leased(site: &Site<'_>, issuer: &Issuer<'_>, token: &Path) -> Result<()> {
    for login in login::logins(site.api)? {
        login::revoke(site.api, &login)?;
    }
    issuer.lease(site.api, LEASE)?;
    let mut cart = site.log_in(token, pki::SIGN, SHORT_LIFETIME)?;
    site.first(&mut cart)?;
    let made = login::logins(site.api)?;
    wait::pause(LEASE + LEASE / 3)?;
    let held = cart.identity()?;
    cart.next_identity(&held, LIMIT)?;
    let now = login::logins(site.api)?;
    ensure!(now == made, "another login: {now:?} after {made:?}");
    issuer.lease(site.api, LIFETIME)?;
    fact(
        "lease",
        format_args!(
            "of {} s, renewed while certificates of {} s were",
            LEASE.as_secs(),
            SHORT_LIFETIME.as_secs()
        ),
    );
    Ok(())
}

/// Somebody else's token, then nonsense, then the right one.
fn refused(site: &Site<'_>, issuer: &Issuer<'_>) -> Result<()> {
    let token = site.lab.write("token", issuer.token(Workload::Checkout)?)?;
    let mut cart = site.log_in(&token, pki::SIGN, LIFETIME)?;
    let name = told(&mut cart, "refused: HTTP 400: ")?;
    ensure!(name.contains("not valid for this role"), "{name}");
    fact("another's name", reason(&name));
    site.lab.write("token", "not.a.token")?;
    let nonsense = told(&mut cart, "error validating token")?;
    fact("no token", reason(&nonsense));
    site.lab.write("token", issuer.token(Workload::Cart)?)?;
    site.first(&mut cart)?;
    Ok(())
}

/// A mount that only knows its own certificate, as it is with a root that is kept elsewhere.
fn without_root(site: &Site<'_>, token: &Path) -> Result<()> {
    let mut cart = site.log_in(token, pki::SIGN_WITHOUT_ROOT, LIFETIME)?;
    let told = told(&mut cart, "none of its certificates is a root")?;
    let root = std::fs::read_to_string(&site.root).context("no root")?;
    pki::import_root(site.api, &root)?;
    site.first(&mut cart)?;
    fact("root not known", reason(&told));
    fact("root imported", "a certificate that leads to it");
    Ok(())
}

/// A token of a service account, which Vault has an API server judge.
fn by_service_account(site: &Site<'_>, control_plane: &ControlPlane) -> Result<()> {
    let cluster = Cluster::start(site.lab, control_plane.folder())?;
    cluster.introduce(site.api)?;
    let account = Workload::Cart.service_account();
    // As a pod has it that was not told whom its token is for.
    let token = site.lab.write("token", cluster.token(account, &[])?)?;
    let mut cart = site.log_in_at(kubernetes::LOGIN, &token, pki::SIGN, LIFETIME)?;
    let told = told(&mut cart, "refused: HTTP 4")?;
    site.lab
        .write("token", cluster.token(account, &[login::AUDIENCE])?)?;
    let held = site.first(&mut cart)?;
    cart.renew()?;
    let new = cart.next_identity(&held, LIMIT)?;
    site.judge(&cart, &new)?;
    fact("service account", "logged in by a token of Kubernetes");
    fact("other audience", reason(&told));
    Ok(())
}

/// What it says once this is part of it, while it goes on to serve.
fn still_ready(agent: &mut Agent, part: &str) -> Result<String> {
    let told = told(agent, part)?;
    ensure!(told.starts_with("certificate until "), "{told}");
    Ok(told)
}

fn told(agent: &mut Agent, part: &str) -> Result<String> {
    wait::until(&format!("{part:?}"), LIMIT, || {
        agent.check()?;
        let page = agent.page("/readyz")?;
        Ok(if page.contains(part) {
            ControlFlow::Break(page.trim_end().to_owned())
        } else {
            ControlFlow::Continue(page)
        })
    })
}

/// What went wrong, of what an agent says of itself.
fn reason(told: &str) -> &str {
    told.split_once("last attempt: ")
        .map_or(told, |(_, reason)| reason)
}
