//! cert-manager's `CertificateRequest`, as far as a registration authority writes and reads it.

use std::borrow::Cow;

use k8s_openapi::ByteString;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::issuer::IssuerRef;
use super::outcome::{Refusal, Verdict};
use super::requests::Request;

/// `cert-manager.io/v1`, `CertificateRequest`. Fields that we neither write nor read are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRequest {
    #[serde(default = "api_version")]
    api_version: String,
    #[serde(default = "kind")]
    kind: String,
    /// Name, labels, annotations.
    pub metadata: ObjectMeta,
    /// What is asked for. cert-manager lets nobody change it.
    pub spec: CertificateRequestSpec,
    /// How it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<CertificateRequestStatus>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRequestSpec {
    /// The CSR, as PEM.
    pub request: ByteString,
    /// In Go's notation, such as `1h0m0s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Whether the holder may sign certificates.
    #[serde(default, rename = "isCA")]
    pub is_ca: bool,
    /// Such as `client auth`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usages: Vec<String>,
    /// Who is to sign.
    pub issuer_ref: IssuerRef,
}

/// How it stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRequestStatus {
    /// Approved, denied, ready …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The certificate and those above it, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ByteString>,
    /// The top of the chain, as far as the signer knows it, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<ByteString>,
    /// When it failed for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_time: Option<Time>,
}

/// One statement about a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Such as `Ready`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// In one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl CertificateRequest {
    /// A new one; its status is for others to write.
    pub fn new(metadata: ObjectMeta, spec: CertificateRequestSpec) -> Self {
        Self {
            api_version: api_version(),
            kind: kind(),
            metadata,
            spec,
            status: None,
        }
    }

    fn condition(&self, kind: &str, status: &str) -> Option<&Condition> {
        let conditions = &self.status.as_ref()?.conditions;
        conditions
            .iter()
            .find(|condition| condition.type_ == kind && condition.status == status)
    }
}

impl Resource for CertificateRequest {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        "certificaterequests".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Request for CertificateRequest {
    const APPROVED_AT: &'static str = "status";

    fn verdict(&self) -> Option<Verdict> {
        let refused = |how: fn(String) -> Refusal, condition: &Condition| {
            let reason = condition.reason.as_deref().unwrap_or_default();
            let message = condition.message.as_deref().unwrap_or_default();
            Some(Err(how(format!("{reason}: {message}"))))
        };
        if let Some(denied) = self.condition("Denied", "True") {
            return refused(Refusal::Denied, denied);
        }
        if let Some(invalid) = self.condition("InvalidRequest", "True") {
            return refused(Refusal::Invalid, invalid);
        }
        if let Some(open) = self.condition("Ready", "False") {
            match open.reason.as_deref() {
                Some("Failed") => return refused(Refusal::Failed, open),
                Some("Denied") => return refused(Refusal::Denied, open),
                _ => {}
            }
        }
        // `Ready` need not be true yet: the certificate is what was asked for.
        let status = self.status.as_ref()?;
        let certificate = status.certificate.as_ref()?;
        (!certificate.0.is_empty()).then(|| {
            let ca = status.ca.as_ref().filter(|ca| !ca.0.is_empty());
            Ok(Answer::new(
                certificate.0.clone(),
                ca.map(|ca| ca.0.clone()),
            ))
        })
    }

    fn is_decided(&self) -> bool {
        self.condition("Approved", "True").is_some() || self.condition("Denied", "True").is_some()
    }

    fn approve(&mut self, at: Time, reason: &str, message: &str) {
        let status = self.status.get_or_insert_default();
        status.conditions.push(Condition {
            type_: "Approved".into(),
            status: "True".into(),
            last_transition_time: Some(at),
            reason: Some(reason.into()),
            message: Some(message.into()),
        });
    }

    fn asks_the_same_as(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

fn api_version() -> String {
    format!("{GROUP}/{VERSION}")
}

fn kind() -> String {
    KIND.into()
}

const KIND: &str = "CertificateRequest";
const GROUP: &str = "cert-manager.io";
const VERSION: &str = "v1";

#[cfg(test)]
mod tests {
    use super::*;

    fn with_status(status: &serde_json::Value) -> CertificateRequest {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "istio-csr-x"},
            "spec": {"request": "AAAA", "issuerRef": {"name": "ca"}},
            "status": status,
        }))
        .unwrap()
    }

    /// What cert-manager and external issuers write, in the order in which istio-csr judges it; and what it does not judge.
    #[test]
    fn conditions_of_cert_manager_are_read_as_istio_csr_reads_them() {
        let condition = |kind: &str, status: &str, reason: &str| serde_json::json!({"type": kind, "status": status, "reason": reason, "message": "m"});
        let certificate = "QQ==";
        let open = [
            serde_json::json!({}),
            serde_json::json!({"conditions": [condition("Ready", "False", "Pending")]}),
            serde_json::json!({"conditions": [condition("Ready", "Unknown", "Initializing")]}),
            serde_json::json!({"conditions": [condition("Approved", "True", "cert-manager.io")]}),
            serde_json::json!({"conditions": [condition("Denied", "False", "x")]}),
            serde_json::json!({"certificate": ""}),
        ];
        for status in open {
            let verdict = with_status(&status).verdict();
            assert!(verdict.is_none(), "{status}");
        }
        let text = |reason: &str| format!("{reason}: m");
        let denied = with_status(&serde_json::json!({
            "conditions": [condition("Denied", "True", "policy")], "certificate": certificate
        }));
        assert_eq!(denied.verdict(), Some(Err(Refusal::Denied(text("policy")))));
        for (condition, refusal) in [
            (
                condition("InvalidRequest", "True", "bad"),
                Refusal::Invalid(text("bad")),
            ),
            (
                condition("Ready", "False", "Failed"),
                Refusal::Failed(text("Failed")),
            ),
            (
                condition("Ready", "False", "Denied"),
                Refusal::Denied(text("Denied")),
            ),
        ] {
            let refused = with_status(&serde_json::json!({"conditions": [condition]}));
            assert_eq!(refused.verdict(), Some(Err(refusal)));
        }
        let issued = with_status(&serde_json::json!({"certificate": certificate, "ca": "Qg=="}));
        let answer = Answer::new(b"A".to_vec(), Some(b"B".to_vec()));
        assert_eq!(issued.verdict(), Some(Ok(answer)));
    }

    #[test]
    fn it_is_written_as_cert_manager_reads_it() {
        let spec = CertificateRequestSpec {
            request: ByteString(b"pem".to_vec()),
            duration: Some("1h0m0s".into()),
            is_ca: false,
            usages: vec!["client auth".into()],
            issuer_ref: "Issuer.cert-manager.io/istio-ca".parse().unwrap(),
        };
        let written = serde_json::to_value(CertificateRequest::new(ObjectMeta::default(), spec));
        assert_eq!(
            written.unwrap(),
            serde_json::json!({
                "apiVersion": "cert-manager.io/v1",
                "kind": "CertificateRequest",
                "metadata": {},
                "spec": {
                    "request": "cGVt",
                    "duration": "1h0m0s",
                    "isCA": false,
                    "usages": ["client auth"],
                    "issuerRef": {"name": "istio-ca", "kind": "Issuer", "group": "cert-manager.io"},
                },
            })
        );
    }
}
