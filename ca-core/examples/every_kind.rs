//! Issues one certificate of every kind into a folder, for other implementations to judge: each CA key with each kind of
//! leaf, an intermediate with and without constraints, a serving certificate, a common name.
//!
//! `cargo run --example every_kind --features aws-lc-rs,testing -- FOLDER`

use std::path::Path;
use std::time::Duration;

use ca_core::crypto::AWS_LC_RS;
use ca_core::testing::{TestCa, now};
use ca_core::{
    BundleStore, CaRequest, Certificate, CertificateChain, Csr, IssuedChain, KeyCertBundle,
    KeyKind, LocalAuthority, PrivateKey, SigningRequest, SubjectName, create_csr_pem,
};

const HOUR: Duration = Duration::from_secs(3600);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os()
        .nth(1)
        .ok_or("usage: every_kind FOLDER")?;
    let folder = Path::new(&folder);
    let kinds = [
        ("rsa2048", KeyKind::Rsa2048),
        ("rsa3072", KeyKind::Rsa3072),
        ("p256", KeyKind::EcdsaP256),
        ("p384", KeyKind::EcdsaP384),
        ("ed25519", KeyKind::Ed25519),
    ];
    let names: Vec<SubjectName> = vec!["spiffe://cluster.local/ns/shop/sa/cart".parse()?];
    for (ca_name, ca_kind) in kinds {
        let ca = TestCa::with_key(
            "cluster.local",
            PrivateKey::generate_with(ca_kind, &AWS_LC_RS)?,
        );
        for (leaf_name, leaf_kind) in kinds {
            let issued = sign(&ca.authority(), leaf_kind, names.clone())?;
            write(folder, &format!("{ca_name}-{leaf_name}"), &issued)?;
        }
        let serving = vec![
            "istiod.istio-system.svc".parse()?,
            "127.0.0.1".parse()?,
            "::1".parse()?,
        ];
        let (_, issued) = ca.authority().issue_with_new_key(serving, HOUR, now())?;
        write(folder, &format!("{ca_name}-serving"), &issued)?;
    }

    let root = TestCa::new("cluster.local");
    for (name, constrained) in [("intermediate", false), ("constrained", true)] {
        let key = PrivateKey::generate(KeyKind::EcdsaP256)?;
        let request = CaRequest::new(csr(&key)?, "cluster.local", name, HOUR).with_path_length(0);
        let request = if constrained {
            request.permitting_only("cluster.local".parse()?)
        } else {
            request
        };
        let issued = root.authority().issue_ca(&request, now())?;
        let bundle = KeyCertBundle::new(
            std::sync::Arc::new(key),
            issued.chain().clone(),
            issued.roots().clone(),
            now(),
        )?;
        let below = LocalAuthority::new(BundleStore::new(bundle));
        write(
            folder,
            &format!("{name}-p256"),
            &sign(&below, KeyKind::EcdsaP256, names.clone())?,
        )?;
    }
    Ok(())
}

fn csr(key: &PrivateKey) -> Result<Csr, Box<dyn std::error::Error>> {
    Ok(Csr::from_pem(create_csr_pem(key, &[])?.as_bytes())?)
}

fn sign(
    authority: &LocalAuthority,
    kind: KeyKind,
    names: Vec<SubjectName>,
) -> Result<IssuedChain, Box<dyn std::error::Error>> {
    let key = PrivateKey::generate_with(kind, &AWS_LC_RS)?;
    Ok(authority.issue(&SigningRequest::new(csr(&key)?, names, HOUR), now())?)
}

/// `NAME.leaf.pem`, `NAME.chain.pem` (intermediates, may be empty) and `NAME.root.pem`.
fn write(folder: &Path, name: &str, issued: &IssuedChain) -> std::io::Result<()> {
    let chain: &CertificateChain = issued.chain();
    let intermediates: String = chain
        .intermediates()
        .iter()
        .map(Certificate::to_pem)
        .collect();
    std::fs::write(
        folder.join(format!("{name}.leaf.pem")),
        chain.leaf().to_pem(),
    )?;
    std::fs::write(folder.join(format!("{name}.chain.pem")), intermediates)?;
    std::fs::write(
        folder.join(format!("{name}.root.pem")),
        issued.roots().to_pem(),
    )
}
