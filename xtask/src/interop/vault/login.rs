//! Logging in to Vault with a JWT, and what Vault then lets one do.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::api::{Api, text};
use super::pki::{SIGN, SIGN_CHECKOUT, SIGN_WITHOUT_ROOT};
use crate::interop::clock;
use crate::interop::openssl::openssl;
use crate::lab::Lab;
use crate::mesh::{TRUST_DOMAIN, Workload};
use crate::workspace;

/// The role that workloads log in as, whatever they log in with.
pub(super) const ROLE: &str = "mesh";

/// Where the login with a JWT is.
pub(super) const JWT: &str = "auth/jwt/login";

/// Whom a token of a service account must be for.
pub(super) const AUDIENCE: &str = "vault";

/// What those may who have logged in.
pub(super) const POLICY: &str = "mesh";

/// What the one may who has a token of its own.
const CHECKOUT_POLICY: &str = "checkout";

/// Who makes the JWTs that Vault believes: a key of ours.
pub(super) struct Issuer<'a> {
    lab: &'a Lab,
    key: PathBuf,
}

impl<'a> Issuer<'a> {
    /// A key, and a Vault that believes it. **Nobody is believed yet at the other way to log in.**
    pub(super) fn set_up(lab: &'a Lab, api: &Api) -> Result<Self> {
        let key = lab.path("issuer.key");
        let mut make = openssl(&["genpkey", "-algorithm", "RSA", "-out"]);
        workspace::output(make.arg(&key))?;
        let public = workspace::output(openssl(&["pkey", "-pubout", "-in"]).arg(&key))?;
        for kind in ["jwt", "kubernetes"] {
            api.post(&format!("/v1/sys/auth/{kind}"), &json!({ "type": kind }))?;
        }
        let believed = json!({ "jwt_validation_pubkeys": [public] });
        api.post("/v1/auth/jwt/config", &believed)?;
        let issuer = Self { lab, key };
        issuer.lease(api, Duration::from_secs(3600))?;
        allow(api)?;
        Ok(issuer)
    }

    /// How long a login is good from now on, if it is not renewed.
    pub(super) fn lease(&self, api: &Api, lease: Duration) -> Result<()> {
        let role = json!({
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": [AUDIENCE],
            // As the login of Kubernetes calls them.
            "claim_mappings": {
                "/kubernetes.io/namespace": "service_account_namespace",
                "/kubernetes.io/serviceaccount/name": "service_account_name",
            },
            "token_policies": [POLICY],
            "token_ttl": lease.as_secs(),
        });
        api.post(&format!("/v1/auth/jwt/role/{ROLE}"), &role)
            .map(drop)
    }

    /// A token as a kubelet mounts it.
    pub(super) fn token(&self, workload: Workload) -> Result<String> {
        let (namespace, account) = (workload.namespace(), workload.service_account());
        let now = clock::now().duration_since(UNIX_EPOCH);
        let now = now.context("before 1970")?.as_secs();
        let claims = json!({
            "iss": "https://kubernetes.default.svc",
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "aud": [AUDIENCE],
            "iat": now,
            "exp": now + 3600,
            "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": account } },
        });
        let header = json!({ "alg": "RS256", "typ": "JWT" });
        let [header, claims] =
            [header, claims].map(|part| self.base64url("part", part.to_string().as_bytes()));
        let signed = format!("{}.{}", header?, claims?);
        let signature = self.lab.path("signature");
        let mut sign = openssl(&["dgst", "-sha256", "-sign"]);
        sign.arg(&self.key).arg("-out").arg(&signature);
        workspace::output(sign.arg(self.lab.write("signed", &signed)?))?;
        let signature = fs::read(&signature).context("cannot read a signature")?;
        Ok(format!(
            "{signed}.{}",
            self.base64url("signature", &signature)?
        ))
    }

    fn base64url(&self, name: &str, bytes: &[u8]) -> Result<String> {
        let file = self.lab.write(name, bytes)?;
        let text = workspace::output(openssl(&["base64", "-A", "-in"]).arg(file))?;
        Ok(text
            .trim_end()
            .trim_end_matches('=')
            .replace('+', "-")
            .replace('/', "_"))
    }
}

/// Lets those who have logged in have certificates.
pub(super) fn allow(api: &Api) -> Result<()> {
    write_policy(api, POLICY, &[SIGN, SIGN_WITHOUT_ROOT], "update")
}

/// Takes that right away again, also from those who have logged in.
pub(super) fn forbid(api: &Api) -> Result<()> {
    write_policy(api, POLICY, &[SIGN, SIGN_WITHOUT_ROOT], "deny")
}

fn write_policy(api: &Api, name: &str, paths: &[&str], capability: &str) -> Result<()> {
    let rules: String = paths
        .iter()
        .map(|path| format!("path \"{path}\" {{ capabilities = [\"{capability}\"] }}\n"))
        .collect();
    let policy = json!({ "policy": rules });
    api.post(&format!("/v1/sys/policies/acl/{name}"), &policy)
        .map(drop)
}

/// The name of a workload, as a template that Vault fills in for whoever has logged in at this mount.
pub(super) fn name_template(api: &Api, mount: &str) -> Result<String> {
    let mounts = api.get("/v1/sys/auth")?;
    let accessor = text(&mounts, &format!("/data/{mount}~1/accessor"))?;
    let metadata = |key: &str| {
        format!("{{{{identity.entity.aliases.{accessor}.metadata.service_account_{key}}}}}")
    };
    Ok(format!(
        "spiffe://{}/ns/{}/sa/{}",
        TRUST_DOMAIN,
        metadata("namespace"),
        metadata("name")
    ))
}

/// A token of Vault itself, for somebody who does not log in: what it opens, and what it is looked up by.
pub(super) fn own_token(api: &Api) -> Result<(String, String)> {
    write_policy(api, CHECKOUT_POLICY, &[SIGN_CHECKOUT], "update")?;
    let wish = json!({ "policies": [CHECKOUT_POLICY], "period": "1h" });
    let made = api.post("/v1/auth/token/create", &wish)?;
    let part = |name: &str| text(&made, &format!("/auth/{name}")).map(str::to_owned);
    Ok((part("client_token")?, part("accessor")?))
}

/// What Vault knows of a token.
pub(super) fn look_up(api: &Api, accessor: &str) -> Result<Value> {
    let wish = json!({ "accessor": accessor });
    Ok(api.post("/v1/auth/token/lookup-accessor", &wish)?["data"].take())
}

/// The logins that are good at this time, by what they are looked up by.
pub(super) fn logins(api: &Api) -> Result<Vec<String>> {
    let all = api.list("/v1/auth/token/accessors")?;
    let all = all["data"]["keys"].as_array().into_iter().flatten();
    let mut found = Vec::new();
    for accessor in all.filter_map(Value::as_str) {
        // One whose lease has just ended is no longer there.
        let Ok(token) = look_up(api, accessor) else {
            continue;
        };
        if token["path"]
            .as_str()
            .is_some_and(|path| path != "auth/token/create" && path != "auth/token/root")
        {
            found.push(accessor.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// As an operator does who has reason to.
pub(super) fn revoke(api: &Api, accessor: &str) -> Result<()> {
    let wish = json!({ "accessor": accessor });
    api.post("/v1/auth/token/revoke-accessor", &wish).map(drop)
}
