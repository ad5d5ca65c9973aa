//! `interop clients`: requests made by `OpenSSL`, sent by Python gRPC, and judged by `OpenSSL` and linters.

mod grpc;
mod linters;
mod openssl;
mod refusals;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use self::grpc::{Client, Wish};
use self::openssl::KeyKind;
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
        linters::check(&leaves, &ca.root_certificate)
    })?;
    println!("clients: passed");
    Ok(())
}

/// The files of one leaf of each kind.
fn issue_each_kind(lab: &Lab, ca: &Ca<'_>, client: &Client<'_>) -> Result<Vec<PathBuf>> {
    let token = ca.token(CALLER, &[])?;
    let mut leaves = Vec::new();
    for kind in KeyKind::ALL {
        let request = openssl::foreign_request(lab, kind)?;
        let wish = Wish::new(&request.pem, Some(&token));
        let answer = client.call(&[wish])?.remove(0);
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

        let leaf = lab.write(&format!("{kind}-leaf.pem"), &answer.chain[0])?;
        let chain = lab.write(&format!("{kind}-chain.pem"), answer.chain[1..].concat())?;
        openssl::verify(&leaf, &chain, &ca.root_certificate)?;
        let key = openssl::public_key(&leaf)?;
        ensure!(
            key == request.public_key,
            "{kind}: the certificate has another key than the request"
        );
        let extensions = openssl::extensions(&leaf)?;
        let expected = format!(
            "X509v3 Basic Constraints: critical\n    CA:FALSE\n\
             X509v3 Subject Alternative Name: critical\n    URI:{}\n",
            CALLER.spiffe_id()
        );
        ensure!(
            extensions == expected,
            "{kind}: expected\n{expected}but the leaf says\n{extensions}"
        );
        println!(
            "  {kind:<10} signed; OpenSSL accepts it, its only name is {}",
            CALLER.spiffe_id()
        );
        leaves.push(leaf);
    }
    Ok(leaves)
}
