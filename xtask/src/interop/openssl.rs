//! The `openssl` program: makes requests, judges what comes back.

use std::fmt::{self, Display};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::lab::Lab;
use crate::workspace;

#[derive(Clone, Copy)]
pub(super) enum KeyKind {
    Rsa2048,
    P256,
    P384,
    Ed25519,
}

impl KeyKind {
    pub(super) const ALL: [Self; 4] = [Self::Rsa2048, Self::P256, Self::P384, Self::Ed25519];

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Rsa2048 => &["-newkey", "rsa:2048"],
            Self::P256 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::P384 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
            Self::Ed25519 => &["-newkey", "ed25519"],
        }
    }
}

impl Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rsa2048 => "RSA-2048",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::Ed25519 => "Ed25519",
        })
    }
}

pub(super) struct Request {
    pub(super) pem: String,
    pub(super) der: Vec<u8>,
    /// As PEM.
    pub(super) public_key: String,
}

/// The subject of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject {
    Empty,
    Foreign,
}

impl Subject {
    fn argument(self) -> &'static str {
        match self {
            Self::Empty => "/",
            Self::Foreign => "/O=foreign/CN=foreign",
        }
    }
}

/// A request, with a new key, that asks for what it must not get: other names, to be a CA.
pub(super) fn greedy_request(lab: &Lab, kind: KeyKind, subject: Subject) -> Result<Request> {
    let file = lab.path(format!("{kind}.csr"));
    let mut make = openssl(&[
        "req",
        "-new",
        "-nodes",
        "-batch",
        "-subj",
        subject.argument(),
    ]);
    make.args(kind.arguments())
        .args([
            "-addext",
            "subjectAltName=URI:spiffe://cluster.local/ns/bank/sa/vault,DNS:bank",
        ])
        .args(["-addext", "basicConstraints=critical,CA:TRUE"])
        .args(["-addext", "keyUsage=critical,keyCertSign"])
        .arg("-keyout")
        .arg(lab.path(format!("{kind}.key")))
        .arg("-out")
        .arg(&file);
    workspace::output(&mut make)?;
    let der = lab.path(format!("{kind}.csr.der"));
    let mut convert = openssl(&["req", "-outform", "DER"]);
    workspace::output(convert.arg("-in").arg(&file).arg("-out").arg(&der))?;
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    Ok(Request {
        pem: String::from_utf8(read(&file)?).context("a request is not text")?,
        der: read(&der)?,
        public_key: workspace::output(
            openssl(&["req", "-noout", "-pubkey"]).arg("-in").arg(&file),
        )?,
    })
}

/// Bytes under the label of a request, good or not.
pub(super) fn request_pem(lab: &Lab, der: &[u8]) -> Result<String> {
    let file = lab.write("request.der", der)?;
    let base64 = workspace::output(openssl(&["base64"]).arg("-in").arg(&file))?;
    Ok(format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{base64}-----END CERTIFICATE REQUEST-----\n"
    ))
}

/// Does the chain lead to the root, for a server and for a client?
pub(super) fn verify(leaf: &Path, chain: &Path, root: &Path) -> Result<()> {
    for purpose in ["sslserver", "sslclient"] {
        let mut verify = openssl(&["verify", "-x509_strict", "-purpose", purpose]);
        verify
            .arg("-CAfile")
            .arg(root)
            .arg("-untrusted")
            .arg(chain)
            .arg(leaf);
        workspace::output(&mut verify)?;
    }
    Ok(())
}

pub(super) fn public_key(certificate: &Path) -> Result<String> {
    workspace::output(
        openssl(&["x509", "-noout", "-pubkey"])
            .arg("-in")
            .arg(certificate),
    )
}

/// Subject, basic constraints and subject alternative name, as `OpenSSL` prints them.
pub(super) fn names(certificate: &Path) -> Result<String> {
    let mut print = openssl(&["x509", "-noout", "-subject", "-nameopt", "RFC2253"]);
    print.args(["-ext", "basicConstraints,subjectAltName"]);
    let text = workspace::output(print.arg("-in").arg(certificate))?;
    // Some versions end lines with a space.
    Ok(text
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect())
}

/// The program, with these arguments before those of the caller.
pub(super) fn openssl(arguments: &[&str]) -> Command {
    let mut command = workspace::command("openssl");
    command.args(arguments);
    command
}
