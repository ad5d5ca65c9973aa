//! The CA moves to another root in three steps under load, each workload in its own time.

use std::ffi::OsStr;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::House;
use super::load::{Load, under_load};
use super::mesh::{Mesh, Plan};
use crate::identity::Identity;
use crate::interop::fact;
use crate::lab::Lab;
use crate::mesh::{Agent, Ca};
use crate::{wait, workspace};

const LIMIT: Duration = Duration::from_secs(30);
/// Checkout trusts the old root as long as its own last certificate below it lives.
const CHECKOUT_LIVES: Duration = Duration::from_secs(6);
/// Between two changes.
const ANSWERS: u64 = 30;

/// How a CA is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It makes its roots, and an operator says when.
    SelfSigned,
    /// Its files are replaced.
    PluggedIn,
}

/// The three steps.
#[derive(Clone, Copy, Debug)]
enum Step {
    Prepare,
    Activate,
    Retire,
}

pub(super) fn run(house: &House<'_>, way: Way) -> Result<()> {
    let files = Files::make(house.lab)?;
    let plugged_in = [OsStr::new("--root-ca-dir"), files.folder.as_os_str()];
    let plan = Plan {
        checkout_lives: CHECKOUT_LIVES,
        ca: if way == Way::PluggedIn {
            &plugged_in
        } else {
            &[]
        },
        ..Plan::default()
    };
    let mut mesh = Mesh::start(house, plan)?;
    let take = |step, ca: &Ca<'_>| match way {
        Way::SelfSigned => ca.rotate(step_name(step)).map(drop),
        Way::PluggedIn => files.take(step),
    };
    let ((), load) = under_load(mesh.outbound.listener, |load| {
        three_steps(&mut mesh, load, take)
    })?;
    mesh.is_clean()?;
    fact("requests", load.flawless()?);
    fact(
        "on the wire",
        "the new root's certificates beside those of the old one, and then the old one is refused",
    );
    Ok(())
}

fn three_steps(
    mesh: &mut Mesh<'_>,
    load: &Load,
    take: impl Fn(Step, &Ca<'_>) -> Result<()>,
) -> Result<()> {
    mesh.on_the_wire(LIMIT)?;
    // It lives for an hour: whoever refuses it later has another reason than its dates.
    let old = mesh.cart.identity()?;

    take(Step::Prepare, &mesh.ca)?;
    renew_until(&mut mesh.cart, "both roots", |now| now.roots.len() == 2)?;
    renew_until(&mut mesh.checkout, "both roots", |now| now.roots.len() == 2)?;
    load.goes_on(ANSWERS, LIMIT)?;

    take(Step::Activate, &mesh.ca)?;
    let is_new = |now: &Identity| now.leaf.issuer_key != old.leaf.issuer_key;
    renew_until(&mut mesh.cart, "certificate of the new root", is_new)?;
    mesh.on_the_wire(LIMIT)?;
    load.goes_on(ANSWERS, LIMIT)?;
    renew_until(&mut mesh.checkout, "certificate of the new root", is_new)?;
    mesh.on_the_wire(LIMIT)?;
    load.goes_on(ANSWERS, LIMIT)?;
    // With today's roots, to be sure that it is not we who refuse.
    let old = Identity {
        roots: Arc::clone(&mesh.cart.identity()?.roots),
        ..old
    };
    mesh.probe(&old)
        .context("a certificate of the old root, while both are trusted")?;

    take(Step::Retire, &mesh.ca)?;
    renew_until(&mut mesh.checkout, "new root alone", |now| {
        now.roots.len() == 1
    })?;
    let refusal = wait::until("refusal of the old root", LIMIT, || {
        Ok(match mesh.probe(&old) {
            Ok(_) => ControlFlow::Continue("its certificate is let in".to_owned()),
            Err(error) => ControlFlow::Break(format!("{error:#}")),
        })
    })?;
    ensure!(
        refusal.contains("the server ended the connection"),
        "not the server has refused: {refusal}"
    );
    load.goes_on(ANSWERS, LIMIT)
}

/// Each answer of the CA tells what it is up to: what an agent has may be from before the change.
fn renew_until(agent: &mut Agent, what: &str, good: impl Fn(&Identity) -> bool) -> Result<()> {
    let mut seen = agent.identity()?;
    agent.renew()?;
    wait::until(what, LIMIT, || {
        let now = agent.identity()?;
        let (roots, issuer) = (now.roots.len(), now.leaf.issuer_key.clone());
        if good(&now) {
            return Ok(ControlFlow::Break(()));
        }
        if now.leaf.serial != seen.leaf.serial {
            seen = now;
            agent.renew()?;
        }
        Ok(ControlFlow::Continue(format!(
            "{roots} roots, signed by {issuer}"
        )))
    })
}

fn step_name(step: Step) -> &'static str {
    match step {
        Step::Prepare => "prepare",
        Step::Activate => "activate",
        Step::Retire => "retire",
    }
}

/// A plugged-in CA, in a folder that changes as a mounted volume does.
struct Files {
    folder: PathBuf,
    old: Root,
    new: Root,
}

struct Root {
    key: String,
    certificate: String,
}

impl Files {
    fn make(lab: &Lab) -> Result<Self> {
        let files = Self {
            folder: lab.path("cacerts"),
            old: Root::make(lab, "old")?,
            new: Root::make(lab, "new")?,
        };
        fs::create_dir(&files.folder).context("cannot make a folder for the CA")?;
        files.put("0", &files.old, &files.old.certificate)?;
        for name in [
            "ca-key.pem",
            "ca-cert.pem",
            "cert-chain.pem",
            "root-cert.pem",
        ] {
            let target = PathBuf::from("..data").join(name);
            std::os::unix::fs::symlink(target, files.folder.join(name))
                .context("cannot make a link")?;
        }
        Ok(files)
    }

    fn take(&self, step: Step) -> Result<()> {
        let both = format!("{}{}", self.old.certificate, self.new.certificate);
        match step {
            Step::Prepare => self.put("1", &self.old, &both),
            Step::Activate => self.put("2", &self.new, &both),
            Step::Retire => self.put("3", &self.new, &self.new.certificate),
        }
    }

    /// All at once, by the swap of a link.
    fn put(&self, generation: &str, signer: &Root, roots: &str) -> Result<()> {
        let folder = self.folder.join(generation);
        fs::create_dir(&folder).context("cannot make a folder for files")?;
        let files = [
            ("ca-key.pem", signer.key.as_str()),
            ("ca-cert.pem", &signer.certificate),
            ("cert-chain.pem", &signer.certificate),
            ("root-cert.pem", roots),
        ];
        for (name, text) in files {
            fs::write(folder.join(name), text).context("cannot write a file of the CA")?;
        }
        let link = self.folder.join("..new");
        std::os::unix::fs::symlink(generation, &link).context("cannot make a link")?;
        fs::rename(&link, self.folder.join("..data")).context("cannot swap a link")
    }
}

impl Root {
    fn make(lab: &Lab, name: &str) -> Result<Self> {
        let (key, certificate) = (
            lab.path(format!("{name}.key")),
            lab.path(format!("{name}.pem")),
        );
        let mut openssl = workspace::command("openssl");
        openssl
            .args(["req", "-x509", "-nodes", "-days", "1", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj"])
            .arg(format!("/O=cluster.local/CN={name}"))
            .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate);
        workspace::output(&mut openssl)?;
        Ok(Self {
            key: fs::read_to_string(key).context("cannot read what openssl made")?,
            certificate: fs::read_to_string(certificate)
                .context("cannot read what openssl made")?,
        })
    }
}
