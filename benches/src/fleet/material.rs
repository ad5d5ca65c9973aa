//! What is replaced under a running server: two CAs to plug in, and the keys of two token issuers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ca_auth::LocalIssuer;
use ca_core::{KeyKind, PrivateKey, RootParams};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::material::TRUST_DOMAIN;

/// `a/` and `b/` are complete CAs with roots of their own; both trust both roots, so that changing from one to the other
/// breaks nobody. `roots-a.pem` has the root of `a` alone. `issuer-*.pem` are keys for tokens, `issuer-*.json` their JWK
/// Sets, `issuers.json` that of both.
pub(crate) fn write(folder: &Path, now: OffsetDateTime) -> Result<()> {
    let mut roots = Vec::new();
    for name in ["a", "b"] {
        let key = PrivateKey::generate(KeyKind::EcdsaP256)?;
        // An organization each, so that a path is found by name.
        let params = RootParams::new(format!("{TRUST_DOMAIN} {name}"), LIFETIME);
        roots.push((name, params.self_sign(&key, now)?, key));
    }
    let both: String = roots.iter().map(|(_, root, _)| root.to_pem()).collect();
    for (name, root, key) in &roots {
        let folder = folder.join(name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        put(&folder.join("ca-cert.pem"), root.to_pem())?;
        put(&folder.join("ca-key.pem"), &key.to_pkcs8_pem())?;
        put(&folder.join("cert-chain.pem"), root.to_pem())?;
        put(&folder.join("root-cert.pem"), &both)?;
    }
    put(&folder.join("roots-a.pem"), roots[0].1.to_pem())?;
    put(&folder.join("roots.pem"), &both)?;
    let mut keys = Vec::new();
    for name in ["a", "b"] {
        let issuer = LocalIssuer::generate()?;
        let pem = issuer.to_pkcs8_pem();
        put(&folder.join(format!("issuer-{name}.pem")), &pem)?;
        let jwk = jwk(&issuer, &PrivateKey::from_pem(pem.as_bytes())?);
        put(
            &folder.join(format!("issuer-{name}.json")),
            &set(std::slice::from_ref(&jwk)),
        )?;
        keys.push(jwk);
    }
    put(&folder.join("issuers.json"), &set(&keys))
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn jwk(issuer: &LocalIssuer, key: &PrivateKey) -> Value {
    use ca_core::SigningKey as _;
    let spki = key.public_key().spki_der();
    // The point stands at the end, uncompressed: two coordinates of 32 bytes.
    let (x, y) = spki[spki.len() - 64..].split_at(32);
    json!({
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
        "kid": issuer.keys().fingerprints().next(),
        "x": BASE64_URL_SAFE_NO_PAD.encode(x),
        "y": BASE64_URL_SAFE_NO_PAD.encode(y),
    })
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

const LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
