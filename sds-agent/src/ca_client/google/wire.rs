//! The JSON of `projects.locations.caPools.certificates.create` and `projects.locations.caPools.fetchCaCerts`, API version 1.

use std::time::Duration;

use ca_core::IssuedChain;
use serde_json::Value;

use crate::{
    args::GoogleSubject,
    ca_client::answer::{AnswerFault, Certificates},
    transport::{JsonFault, json, one_line, text},
};

pub(super) fn create_body(csr_pem: &str, lifetime: Duration, subject: GoogleSubject) -> Vec<u8> {
    let mode = match subject {
        GoogleSubject::Reflected => "REFLECTED_SPIFFE",
        GoogleSubject::Request => "DEFAULT",
    };
    let body = serde_json::json!({
        "pemCsr": csr_pem,
        "lifetime": format!("{}s", lifetime.as_secs()),
        "subjectMode": mode,
    });
    body.to_string().into_bytes()
}

/// The certificate with what stands above it, and the chains of all CAs of the pool, whose ends are the roots.
pub(super) fn read_issued(created: &[u8], ca_certs: &[u8]) -> Result<IssuedChain, AnswerFault> {
    let (created, ca_certs) = (json(created)?, json(ca_certs)?);
    let mut above = Certificates::default();
    above.add_list("pemCertificateChain", created.get("pemCertificateChain"))?;
    let chains = ca_certs.get("caCerts").and_then(Value::as_array);
    for chain in chains.ok_or(JsonFault::Missing("caCerts"))? {
        above.add_list("caCerts", chain.get("certificates"))?;
    }
    let leaf = text(&created, "/pemCertificate", "pemCertificate")?;
    above.chain_of("pemCertificate", leaf)
}

/// What Google says with a status that is not good.
pub(super) fn reason(body: &[u8]) -> String {
    let json = json(body).unwrap_or_default();
    let status = text(&json, "/error/status", "").unwrap_or_default();
    match text(&json, "/error/message", "") {
        Ok(message) => one_line(&format!("{status}: {message}")),
        Err(_) => "no reason given".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use ca_core::{Certificate, testing::TestCa};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn roots_come_from_the_pool_and_the_chain_in_between() {
        let ca = TestCa::new("cluster.local");
        let other = TestCa::new("cluster.local");
        let leaf = ca.workload("shop", "cart").1.leaf().to_pem().to_owned();
        let created = json!({"pemCertificate": leaf, "pemCertificateChain": [ca.root_pem()]});
        let pool = json!({"caCerts": [
            {"certificates": [ca.root_pem()]},
            {"certificates": [other.root_pem()]},
        ]});
        let read = |created: &Value, pool: &Value| {
            read_issued(created.to_string().as_bytes(), pool.to_string().as_bytes())
        };
        let issued = read(&created, &pool).unwrap();
        assert_eq!(issued.roots(), &ca.roots().merge(&other.roots()));
        assert!(issued.chain().intermediates().is_empty());
        for (created, pool, reason) in [
            (&json!({}), &pool, "there is no pemCertificate"),
            (&created, &json!({}), "there is no caCerts"),
            (
                &json!({"pemCertificate": "x"}),
                &pool,
                "pemCertificate is not",
            ),
            (
                &json!({"pemCertificate": leaf}),
                &json!({"caCerts": []}),
                "is a root",
            ),
            (
                &created,
                &json!({"caCerts": [{"certificates": ["x"]}]}),
                "caCerts is not",
            ),
        ] {
            let error = read(created, pool).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        let body = br#"{"error":{"code":403,"message":"Permission\ndenied","status":"PERMISSION_DENIED"}}"#;
        assert_eq!(reason(body), "PERMISSION_DENIED: Permission denied");
        assert_eq!(reason(b"<html>"), "no reason given");
    }

    proptest! {
        /// Whatever Google, or somebody in its place, sends is refused or holds together.
        #[test]
        fn no_answer_of_google_does_harm(created in body(), pool in body(), cut in 0_usize..300) {
            let mut created = created;
            if cut > 200 {
                created.truncate(created.len() - created.len().min(cut));
            }
            if let Ok(issued) = read_issued(&created, &pool) {
                prop_assert!(issued.roots().certificates().iter().all(Certificate::is_ca));
            }
            prop_assert!(reason(&created).lines().count() <= 1);
        }
    }

    /// Bytes, or JSON of the right shape with this and that in it.
    fn body() -> impl Strategy<Value = Vec<u8>> {
        let ca = TestCa::new("cluster.local");
        let leaf = ca.workload("shop", "cart").1.leaf().to_pem().to_owned();
        let texts = [leaf, ca.root_pem(), "x".to_owned(), "a\nb".to_owned()];
        let text = proptest::sample::select(texts.to_vec()).boxed();
        let list = proptest::collection::vec(text.clone(), 0..4).prop_map(Value::from);
        let value = prop_oneof![
            text.prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            list,
        ];
        let shaped = proptest::collection::vec(value, 5).prop_map(|v| {
            json!({
                "pemCertificate": v[0],
                "pemCertificateChain": v[1],
                "caCerts": [{"certificates": v[2]}, v[3]],
                "error": {"status": v[4], "message": v[0]},
            })
            .to_string()
            .into_bytes()
        });
        prop_oneof![shaped, proptest::collection::vec(any::<u8>(), 0..64)]
    }
}
