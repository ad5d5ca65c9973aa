//! `interop clients`: requests made by `OpenSSL`, sent by Python gRPC, and judged by `OpenSSL` and linters.

mod grpc;
mod refusals;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use self::grpc::{Client, Wish};
use super::linters;
use super::openssl::{self, KeyKind, Subject};
use crate::lab::Lab;
use crate::mesh::{Binaries, Ca, Workload};

/// Whoever asks with shop/cart's token is shop/cart, whatever else the request says.
const CALLER: Workload = Workload::Cart;

pub(crate) fn run(binaries: &Binaries) -> Result<()> {
    let python = super::grpc_for_python()?;
    println!("\nclients: OpenSSL makes requests, Python gRPC sends them");
    Lab::run("interop-clients", |lab| {
        let mut ca = Ca::start(lab, binaries)?;
        let client = Client::new(lab, &python, &ca);
        let leaves = issue_each_kind(lab, &ca, &client)?;
        refusals::check(lab, &ca, &client)?;
        ca.check().context("the CA must outlive every refusal")?;
        linters::check(&[&leaves[..], &[ca.root_certificate.clone()]].concat())
    })?;
    println!("clients: passed");
    Ok(())
}

/// A leaf of each kind, for a request without a subject and for one with.
fn issue_each_kind(lab: &Lab, ca: &Ca<'_>, client: &Client<'_>) -> Result<Vec<PathBuf>> {
    let id = CALLER.spiffe_id();
    let mut plain = Vec::new();
    for kind in KeyKind::ALL {
        let leaf = issue(lab, ca, client, kind, Subject::Empty, "subject=")?;
        // Whoever asks for a common name gets one, as from Istio, but not the one asked for.
        issue(
            lab,
            ca,
            client,
            kind,
            Subject::Foreign,
            &format!("subject=CN={id}"),
        )?;
        println!("  {kind:<10} signed; OpenSSL accepts it, and its only name is {id}");
        plain.push(leaf);
    }
    // A subject beside a critical alternative name is Istio's way and a linter's complaint: the
    // plain ones are what agents ask for, so they are what is linted.
    Ok(plain)
}

fn issue(
    lab: &Lab,
    ca: &Ca<'_>,
    client: &Client<'_>,
    kind: KeyKind,
    subject: Subject,
    expected_subject: &str,
) -> Result<PathBuf> {
    let request = openssl::greedy_request(lab, kind, subject)?;
    let token = ca.token(CALLER, &[])?;
    let answer = client
        .call(&[Wish::new(&request.pem, Some(&token))])?
        .remove(0);
    ensure!(
        answer.code == "OK",
        "{kind}: {} {:?}",
        answer.code,
        answer.message
    );
    ensure!(
        answer.chain.len() >= 2,
        "{kind}: a reply has the leaf first and the roots last"
    );

    let leaf = lab.write(&format!("{kind}-{subject:?}-leaf.pem"), &answer.chain[0])?;
    let chain = lab.write(
        &format!("{kind}-{subject:?}-chain.pem"),
        answer.chain[1..].concat(),
    )?;
    openssl::verify(&leaf, &chain, &ca.root_certificate)?;
    let key = openssl::public_key(&leaf)?;
    ensure!(
        key == request.public_key,
        "{kind}: the certificate has another key than the request"
    );
    let found = openssl::names(&leaf)?;
    let expected = format!(
        "{expected_subject}\n\
         X509v3 Basic Constraints: critical\n    CA:FALSE\n\
         X509v3 Subject Alternative Name: critical\n    URI:{}\n",
        CALLER.spiffe_id()
    );
    ensure!(
        found == expected,
        "{kind}: expected\n{expected}but the leaf says\n{found}"
    );
    Ok(leaf)
}
