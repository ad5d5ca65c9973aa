//! Vault's PKI engine, set up as its documentation does it: a root in one mount, an intermediate in another.

use anyhow::Result;
use serde_json::json;

use super::api::{Api, text};
use crate::mesh::Workload;

/// Where it signs for whoever has logged in, under that one's own name.
pub(super) const SIGN: &str = "pki/sign/mesh";

/// Where it signs for one workload.
pub(super) const SIGN_CHECKOUT: &str = "pki/sign/checkout";

/// The same below the same root, but this mount has never been told of the root.
pub(super) const SIGN_WITHOUT_ROOT: &str = "pki-without-root/sign/mesh";

/// Gives the PEM of the root. `names` are those that who has logged in may have, as templates.
pub(super) fn set_up(api: &Api, names: &[String]) -> Result<String> {
    mount(api, "root")?;
    let root = json!({ "common_name": "root of the mesh", "key_type": "ec", "key_bits": 256, "ttl": "87600h" });
    let made = api.post("/v1/root/root/generate/internal", &root)?;
    let root = text(&made, "/data/certificate")?.to_owned();
    intermediate(api, "pki", |certificate| format!("{certificate}\n{root}"))?;
    intermediate(api, "pki-without-root", str::to_owned)?;
    for mount in ["pki", "pki-without-root"] {
        role(api, &format!("{mount}/roles/mesh"), names)?;
    }
    role(api, "pki/roles/checkout", &[Workload::Checkout.spiffe_id()])?;
    Ok(root)
}

/// Tells the mount that does not know it of the root. **That makes another issuer of it, without a key.**
pub(super) fn import_root(api: &Api, root: &str) -> Result<()> {
    let path = "/v1/pki-without-root/issuers/import/cert";
    api.post(path, &json!({ "pem_bundle": root })).map(drop)
}

fn mount(api: &Api, path: &str) -> Result<()> {
    let engine = json!({ "type": "pki", "config": { "max_lease_ttl": "87600h" } });
    api.post(&format!("/v1/sys/mounts/{path}"), &engine)
        .map(drop)
}

/// `known` makes what the mount is given of the certificate that its key got.
fn intermediate(api: &Api, path: &str, known: impl FnOnce(&str) -> String) -> Result<()> {
    mount(api, path)?;
    let name = format!("intermediate of {path}");
    let key = json!({ "common_name": name, "key_type": "ec", "key_bits": 256 });
    let made = api.post(&format!("/v1/{path}/intermediate/generate/internal"), &key)?;
    let request = json!({ "csr": text(&made, "/data/csr")?, "common_name": name, "ttl": "43800h" });
    let signed = api.post("/v1/root/root/sign-intermediate", &request)?;
    let certificate = known(text(&signed, "/data/certificate")?);
    let certificate = json!({ "certificate": certificate });
    let path = format!("/v1/{path}/intermediate/set-signed");
    api.post(&path, &certificate).map(drop)
}

/// Certificates of these names and no others, for servers and for clients.
fn role(api: &Api, path: &str, names: &[String]) -> Result<()> {
    let role = json!({
        "allowed_uri_sans": names,
        "allowed_uri_sans_template": true,
        "allow_localhost": false,
        "require_cn": false,
        "key_type": "any",
        "max_ttl": "24h",
    });
    api.post(&format!("/v1/{path}"), &role).map(drop)
}
