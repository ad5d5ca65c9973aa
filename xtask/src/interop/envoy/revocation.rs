//! A revocation list comes and goes. Envoy refuses the certificate that is on it and nobody else.

use std::ffi::OsStr;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::House;
use super::load::under_load;
use super::mesh::{Mesh, Plan};
use crate::identity::Identity;
use crate::interop::fact;
use crate::lab::Lab;
use crate::mesh::Ca;
use crate::{wait, workspace};

const LIMIT: Duration = Duration::from_secs(20);
/// While the list is in force, and after it.
const ANSWERS: u64 = 50;

pub(super) fn run(house: &House<'_>) -> Result<()> {
    let folder = house.lab.path("lists");
    fs::create_dir(&folder).context("cannot make a folder for the list")?;
    let file = folder.join("ca-crl.pem");
    let plan = Plan {
        agents: &[OsStr::new("--crl-file"), file.as_os_str()],
        ..Plan::default()
    };
    let mut mesh = Mesh::start(house, plan)?;
    let (refusals, load) = under_load(mesh.outbound.listener, |load| {
        let revoked = mesh.cart.identity()?;
        mesh.rotate(LIMIT)?;
        mesh.probe(&revoked)
            .context("the old certificate, before it was revoked")?;

        let list = revocation_list(house.lab, &mesh.ca, &revoked)?;
        fs::rename(&list, &file).context("cannot put the list into its place")?;
        let refused = wait_for(&mesh, &revoked, false)?;
        let other = mesh.cart.identity()?;
        mesh.probe(&other)
            .context("a certificate that is not on the list")?;
        load.goes_on(ANSWERS, LIMIT)?;
        // A new certificate does not bring the old one back.
        mesh.rotate(LIMIT)?;
        ensure!(
            mesh.probe(&revoked).is_err(),
            "the revoked one is let in again"
        );
        let counted = mesh.inbound.counter("ssl.fail_verify_error")?;
        ensure!(
            counted > 0,
            "Envoy has refused it for another reason: {refused}"
        );

        fs::remove_file(&file).context("cannot remove the list")?;
        wait_for(&mesh, &revoked, true)?;
        load.goes_on(ANSWERS, LIMIT)?;
        Ok(counted)
    })?;
    mesh.is_clean()?;
    fact("requests", load.flawless()?);
    fact(
        "revoked certificate",
        format_args!("refused {refusals} times, and let in again without the list"),
    );
    Ok(())
}

/// Until the inbound Envoy lets this identity in, or does not. Then tells why not.
fn wait_for(mesh: &Mesh<'_>, identity: &Identity, let_in: bool) -> Result<String> {
    let what = if let_in { "way in" } else { "refusal" };
    wait::until(what, LIMIT, || {
        Ok(match mesh.probe(identity) {
            Ok(_) if let_in => ControlFlow::Break(String::new()),
            Err(error) if !let_in => ControlFlow::Break(format!("{error:#}")),
            Ok(_) => ControlFlow::Continue("it is let in".to_owned()),
            Err(error) => ControlFlow::Continue(format!("{error:#}")),
        })
    })
}

/// A list with this certificate, as an operator would make it: with openssl and the key of the CA.
fn revocation_list(lab: &Lab, ca: &Ca<'_>, revoked: &Identity) -> Result<PathBuf> {
    let state = newest_state(&ca.data.join("authority"))?;
    let serial = revoked.leaf.serial.to_uppercase();
    let zero = if serial.len().is_multiple_of(2) {
        ""
    } else {
        "0"
    };
    let index = format!("R\t491231235959Z\t260101000000Z\t{zero}{serial}\tunknown\t/CN=revoked\n");
    let index = lab.write("index.txt", index)?;
    let config = format!(
        "[ca]\ndefault_ca = here\n[here]\ndatabase = {}\ndefault_md = sha256\ncrl_extensions = list\n\
         [list]\nauthorityKeyIdentifier = keyid\n",
        index.display()
    );
    let config = lab.write("openssl.cnf", config)?;
    let list = lab.path("lists/new");
    let mut openssl = workspace::command("openssl");
    openssl
        .args(["ca", "-gencrl", "-crldays", "1", "-config"])
        .arg(config)
        .arg("-keyfile")
        .arg(state.join("ca-key.pem"))
        .arg("-cert")
        .arg(state.join("ca-cert.pem"))
        .arg("-out")
        .arg(&list);
    workspace::output(&mut openssl)?;
    Ok(list)
}

/// The highest number is the current one.
fn newest_state(folder: &Path) -> Result<PathBuf> {
    let context = || format!("cannot list {}", folder.display());
    let mut newest = None;
    for entry in fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u64>().ok());
        newest = newest.max(number.map(|number| (number, entry.path())));
    }
    Ok(newest.context("the CA has no state")?.1)
}
