//! What is told of one request.

use ca_auth::{Caller, Evidence, RuleName, Source};
use ca_core::IssuedChain;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::status::IssueError;

/// One outcome. The names of the fields are part of what users rely on: `docs/operating.md`.
#[derive(Debug, Serialize)]
pub(crate) struct Record<'a> {
    time: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<CallerRecord<'a>>,
    /// Why the caller gets these names, and what limits them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateRecord>,
}

#[derive(Debug, Serialize)]
struct CallerRecord<'a> {
    identities: Vec<&'a str>,
    authenticator: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_serial: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_issuer: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct CertificateRecord {
    names: Vec<String>,
    serial: String,
    fingerprint_sha256: String,
    key: String,
    not_before: String,
    not_after: String,
    ttl_seconds: i64,
    /// There if it is the certificate of a CA.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ca: bool,
}

impl<'a> Record<'a> {
    pub(crate) fn new(
        now: OffsetDateTime,
        evidence: &'a Evidence,
        caller: Option<&'a Caller>,
        outcome: &Result<IssuedChain, IssueError>,
    ) -> Self {
        Self {
            time: shown(now),
            outcome: if outcome.is_ok() { "issued" } else { "refused" },
            reason: outcome.as_ref().err().map(ToString::to_string),
            peer: evidence.peer_address().map(|address| address.to_string()),
            cluster: evidence.cluster(),
            caller: caller.map(CallerRecord::of),
            rules: Vec::new(),
            certificate: outcome
                .as_ref()
                .ok()
                .map(|issued| CertificateRecord::of(issued, now)),
        }
    }

    pub(crate) fn with_rules(mut self, rules: &[RuleName]) -> Self {
        self.rules = rules.iter().map(ToString::to_string).collect();
        self
    }
}

impl<'a> CallerRecord<'a> {
    fn of(caller: &'a Caller) -> Self {
        let (certificate_serial, token_issuer) = match &caller.source {
            Source::ClientCertificate { serial } => (Some(&**serial), None),
            Source::Token { issuer } => (None, issuer.as_deref()),
            _ => (None, None),
        };
        Self {
            identities: caller
                .identities
                .as_slice()
                .iter()
                .map(ca_core::SpiffeId::as_str)
                .collect(),
            authenticator: caller.authenticator,
            certificate_serial,
            token_issuer,
        }
    }
}

impl CertificateRecord {
    fn of(issued: &IssuedChain, now: OffsetDateTime) -> Self {
        let leaf = issued.chain().leaf();
        Self {
            names: leaf.names().iter().map(ToString::to_string).collect(),
            serial: leaf.serial(),
            fingerprint_sha256: leaf.fingerprint(),
            key: leaf.public_key().kind().to_string(),
            not_before: shown(leaf.not_before()),
            not_after: shown(leaf.not_after()),
            ttl_seconds: (leaf.not_after() - now).whole_seconds(),
            ca: leaf.is_ca(),
        }
    }
}

fn shown(time: OffsetDateTime) -> String {
    // Only a year beyond 9999 does not format, and no certificate has one.
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use ca_auth::Transport;
    use ca_core::testing::{TestCa, now};
    use ca_core::{Csr, PrivateKey, create_csr_pem};

    use super::*;

    pub(in crate::audit) fn issued() -> IssuedChain {
        let ca = TestCa::new("cluster.local");
        let key = PrivateKey::generate(Default::default()).unwrap();
        let csr = Csr::from_pem(create_csr_pem(&key, &[]).unwrap().as_bytes()).unwrap();
        ca.issue(
            &csr,
            &[ca.id("shop", "cart").into()],
            Duration::from_secs(600),
            now(),
        )
    }

    pub(in crate::audit) fn evidence() -> Evidence {
        Evidence::new(Transport::Tls { client_chain: None })
            .with_peer_address("10.0.0.7:4711".parse().unwrap())
            .with_authorization("Bearer secret-token")
            .with_cluster("eu-1")
    }

    #[test]
    fn a_record_tells_who_got_what_and_nothing_secret() {
        let (issued, evidence) = (issued(), evidence());
        let caller = Caller::new(
            "token",
            Source::Token {
                issuer: Some("mesh-ca-local".into()),
            },
            "spiffe://cluster.local/ns/shop/sa/cart"
                .parse::<ca_core::SpiffeId>()
                .unwrap()
                .into(),
            now(),
        );
        let text = serde_json::to_string(
            &Record::new(now(), &evidence, Some(&caller), &Ok(issued.clone()))
                .with_rules(&[RuleName::OWN]),
        );
        let value: serde_json::Value = serde_json::from_str(text.as_ref().unwrap()).unwrap();
        assert_eq!(value["outcome"], "issued");
        assert_eq!(value["peer"], "10.0.0.7:4711");
        assert_eq!(value["cluster"], "eu-1");
        assert_eq!(value["rules"], serde_json::json!(["own identity"]));
        assert_eq!(value["caller"]["token_issuer"], "mesh-ca-local");
        assert_eq!(
            value["certificate"]["names"][0],
            "spiffe://cluster.local/ns/shop/sa/cart"
        );
        assert_eq!(
            value["certificate"]["serial"],
            issued.chain().leaf().serial()
        );
        assert_eq!(value["certificate"]["key"], "ECDSA P-256");
        assert!((595..=600).contains(&value["certificate"]["ttl_seconds"].as_i64().unwrap()));
        assert!(!text.unwrap().contains("secret-token"));

        let refusal = Err(ca_core::CsrError::NotPem.into());
        let value = serde_json::to_value(Record::new(now(), &evidence, None, &refusal)).unwrap();
        assert_eq!(value["outcome"], "refused");
        assert_eq!(
            value["reason"],
            "certificate signing request is not properly encoded"
        );
        assert_eq!(value.get("certificate"), None);
    }
}
