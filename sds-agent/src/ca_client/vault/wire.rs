//! Vault's JSON. `https://openbao.org/api-docs/secret/pki/` describes it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use ca_core::{IssuedChain, SpiffeId};
use serde_json::Value;
use zeroize::Zeroizing;

use super::session::Session;
use crate::{
    ca_client::answer::{AnswerFault, Certificates},
    transport::{JsonFault, json, one_line, take_token, text},
};

pub(super) fn sign_body(csr_pem: &str, identity: &SpiffeId, lifetime: Duration) -> Vec<u8> {
    let body = serde_json::json!({
        "csr": csr_pem,
        "uri_sans": identity.as_str(),
        "ttl": format!("{}s", lifetime.as_secs()),
        "format": "pem",
        "exclude_cn_from_sans": true,
    });
    body.to_string().into_bytes()
}

pub(super) fn login_body(role: &str, jwt: &str) -> Zeroizing<Vec<u8>> {
    let body = serde_json::json!({ "role": role, "jwt": jwt });
    Zeroizing::new(body.to_string().into_bytes())
}

/// Certificate, issuer and what stands above it. The roots are those of its certificates that issued themselves.
pub(super) fn read_signed(body: &[u8]) -> Result<IssuedChain, AnswerFault> {
    let json = json(body)?;
    let mut above = Certificates::default();
    if let Some(issuer) = json.pointer("/data/issuing_ca").and_then(Value::as_str) {
        above.add("issuing_ca", issuer)?;
    }
    above.add_list("ca_chain", json.pointer("/data/ca_chain"))?;
    let leaf = text(&json, "/data/certificate", "certificate")?;
    above.chain_of("certificate", leaf)
}

/// What logging in and renewing give.
pub(super) fn read_session(body: &[u8], now: Instant) -> Result<Session, JsonFault> {
    let mut json = json(body)?;
    let lease = json.pointer("/auth/lease_duration").and_then(Value::as_u64);
    let renewable = json.pointer("/auth/renewable").and_then(Value::as_bool);
    let token = take_token(&mut json, "/auth/client_token", "client_token")?;
    let lease = Duration::from_secs(lease.unwrap_or(0));
    Ok(Session::new(token, now, lease, renewable.unwrap_or(false)))
}

/// What Vault says with a status that is not good.
pub(super) struct Refusal(Vec<String>);

impl Refusal {
    /// Of anything: who refuses need not be Vault, but something before it.
    pub(super) fn read(body: &[u8]) -> Self {
        let json = json(body).unwrap_or_default();
        let errors = json.get("errors").and_then(Value::as_array);
        let texts = errors.into_iter().flatten().filter_map(Value::as_str);
        Self(texts.map(one_line).collect())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no reason given");
        }
        f.write_str(&one_line(&self.0.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use ca_core::testing::TestCa;
    use proptest::prelude::*;

    use super::*;

    fn answer_of(ca: &TestCa, chain: &Value) -> Vec<u8> {
        let (_, issued) = ca.workload("shop", "cart");
        let leaf = issued.leaf().to_pem();
        serde_json::json!({"data": {"certificate": leaf, "issuing_ca": ca.root_pem(), "ca_chain": chain}})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn an_answer_is_put_in_order() {
        let ca = TestCa::new("cluster.local");
        for chain in [
            serde_json::json!(null),
            serde_json::json!([]),
            serde_json::json!([ca.root_pem()]),
        ] {
            let issued = read_signed(&answer_of(&ca, &chain)).unwrap();
            assert_eq!(issued.roots(), &ca.roots());
            assert!(issued.chain().intermediates().is_empty());
        }
        let stranger = TestCa::new("cluster.local");
        let issued =
            read_signed(&answer_of(&ca, &serde_json::json!([stranger.root_pem()]))).unwrap();
        assert_eq!(issued.roots().certificates().len(), 2);
    }

    #[test]
    fn an_answer_that_leads_to_no_root_is_refused() {
        let ca = TestCa::new("cluster.local");
        let (_, issued) = ca.workload("shop", "cart");
        let leaf = issued.leaf().to_pem();
        for (data, reason) in [
            (serde_json::json!({}), "there is no certificate"),
            (serde_json::json!({"certificate": leaf}), "is a root"),
            (
                serde_json::json!({"certificate": leaf, "ca_chain": [leaf]}),
                "is a root",
            ),
            (
                serde_json::json!({"certificate": "x"}),
                "certificate is not",
            ),
            (
                serde_json::json!({"certificate": "x", "ca_chain": [ca.root_pem()]}),
                "certificate is not",
            ),
            (
                serde_json::json!({"certificate": leaf, "ca_chain": [1]}),
                "there is no ca_chain",
            ),
            (
                serde_json::json!({"certificate": leaf, "ca_chain": "x"}),
                "there is no ca_chain",
            ),
            (
                serde_json::json!({"certificate": leaf, "issuing_ca": "x"}),
                "issuing_ca is not",
            ),
        ] {
            let body = serde_json::json!({ "data": data }).to_string();
            let error = read_signed(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{body}: {error}");
        }
    }

    #[test]
    fn refusals_are_one_line() {
        let shown = |body: &str| Refusal::read(body.as_bytes()).to_string();
        let two = "{\"errors\":[\"permission\\n  denied\", \"sealed\"]}";
        assert_eq!(shown(two), "permission denied; sealed");
        assert_eq!(shown("<html>"), "no reason given");
        let long = format!("{{\"errors\":[\"{}\"]}}", "x".repeat(10_000));
        assert!(shown(&long).chars().count() < 400);
    }

    proptest! {
        /// Whatever Vault, or somebody in its place, sends is refused or holds together.
        #[test]
        fn no_answer_of_vault_does_harm(body in body(), cut in 0_usize..2000, at in any::<u8>()) {
            let now = Instant::now();
            let mut body = body;
            body.truncate(body.len().saturating_sub(cut));
            if let Some(byte) = body.first_mut().filter(|_| cut > 1900) {
                *byte = at;
            }
            if let Ok(issued) = read_signed(&body) {
                prop_assert!(issued.roots().certificates().iter().all(ca_core::Certificate::is_ca));
                prop_assert!(issued.chain().intermediates().len() <= 64);
            }
            if let Ok(session) = read_session(&body, now) {
                prop_assert!(session.token().bytes().all(|byte| byte.is_ascii_graphic()));
            }
            prop_assert!(Refusal::read(&body).to_string().lines().count() <= 1);
        }
    }

    /// Bytes, or JSON of the right shape with this and that in it.
    fn body() -> impl Strategy<Value = Vec<u8>> {
        let ca = TestCa::new("cluster.local");
        let leaf = ca.workload("shop", "cart").1.leaf().to_pem().to_owned();
        let texts = [leaf, ca.root_pem(), "x".to_owned(), "a\nb".to_owned()];
        let text = proptest::sample::select(texts.to_vec()).boxed();
        let value = prop_oneof![
            text.clone().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            proptest::collection::vec(text, 0..4).prop_map(Value::from),
        ];
        let shaped = proptest::collection::vec(value, 7).prop_map(|v| {
            serde_json::json!({
                "data": {"certificate": v[0], "issuing_ca": v[1], "ca_chain": v[2]},
                "auth": {"client_token": v[3], "lease_duration": v[4], "renewable": v[5]},
                "errors": v[6],
            })
            .to_string()
            .into_bytes()
        });
        prop_oneof![shaped, proptest::collection::vec(any::<u8>(), 0..64)]
    }
}
