//! The certificate API of Kubernetes: `CertificateSigningRequest`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ca_core::{
    BoxFuture, CertificateAuthority, Csr, IssuedChain, PrivateKey, SignError, SigningRequest,
    SubjectName,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client};
use time::OffsetDateTime;

use super::answer::{Answer, Clock};
use super::error::KubernetesSignerError;
use super::outcome::{Refusal, Verdict};
use super::requests::{Afterwards, Approval, Manner, Request, Requests};
use super::signer_roots::SignerRoots;
use super::upkeep::Upkeep;
use crate::own_request::OwnRequest;
use crate::screen::ScreenedRequest;

/// Which signers are asked, and how.
#[derive(Clone)]
pub struct KubernetesCsrConfig {
    /// The cluster.
    pub client: Client,
    /// Who signs.
    pub signers: SignerNames,
    /// Who approves.
    pub approval: Approval,
    /// What answers are verified with.
    pub roots: SignerRoots,
    /// How long a request may take, from creation to certificate.
    pub deadline: Duration,
}

/// The names of signers: one for requests that name none (`K8S_SIGNER`), and the domain of those that requests may name
/// (`CERT_SIGNER_DOMAIN`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignerNames {
    /// This one for all; a request that names one is an error.
    One(String),
    /// Those of this domain, by the name in the request; a request that names none is an error.
    InDomain(String),
    /// Both.
    OneAndDomain {
        /// For requests that name none.
        default: String,
        /// Of those that are named.
        domain: String,
    },
}

impl SignerNames {
    /// The signer's whole name. As in Istio, nothing is as good as no name.
    fn resolve(&self, named: Option<&str>) -> Result<String, KubernetesSignerError> {
        let (default, domain) = match self {
            Self::One(default) => (Some(default), None),
            Self::InDomain(domain) => (None, Some(domain)),
            Self::OneAndDomain { default, domain } => (Some(default), Some(domain)),
        };
        match named.filter(|name| !name.is_empty()) {
            None => default.cloned().ok_or(KubernetesSignerError::NoSigner),
            Some(name) => match domain {
                Some(domain) => Ok(format!("{domain}/{name}")),
                None => Err(KubernetesSignerError::NoSignerDomain(name.into())),
            },
        }
    }
}

impl fmt::Display for SignerNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(default) => f.write_str(default),
            Self::InDomain(domain) => write!(f, "{domain}/*"),
            Self::OneAndDomain { default, domain } => write!(f, "{default}, {domain}/*"),
        }
    }
}

/// Signers of the certificate API of Kubernetes, asked as istiod asks them with `EXTERNAL_CA=ISTIOD_RA_KUBERNETES_API`.
///
/// For each request an object is made, approved where that is ours to do, waited for, and deleted, however it ends. All
/// wait on one watch. A denied or failed request ends at once.
///
/// The API makes no certificate of less than ten minutes: a request for less is refused here.
///
/// ```no_run
/// use std::time::Duration;
///
/// use ca_core::{CertificateAuthority as _, Csr, SigningRequest};
/// use ca_ra::{Approval, KubernetesCsrAuthority, KubernetesCsrConfig, SignerNames, SignerRoots};
///
/// # async fn example(
/// #     client: kube::Client, csr_pem: String, now: time::OffsetDateTime,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let (authority, upkeep) = KubernetesCsrAuthority::new(KubernetesCsrConfig {
///     client,
///     signers: SignerNames::One("example.com/mesh".into()),
///     approval: Approval::Ours,
///     roots: SignerRoots::in_file("/etc/external-ca-cert/root-cert.pem".as_ref())?,
///     deadline: Duration::from_secs(60),
/// });
/// tokio::spawn(upkeep.run());
///
/// let csr = Csr::from_pem(csr_pem.as_bytes())?;
/// let name: ca_core::SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse()?;
/// let request = SigningRequest::new(csr, vec![name.into()], Duration::from_secs(3600));
/// let issued = authority.sign(request, now).await?;
/// assert_eq!(issued.chain().leaf().spiffe_ids().count(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KubernetesCsrAuthority {
    requests: Requests<CertificateSigningRequest>,
    signers: SignerNames,
    roots: SignerRoots,
}

impl KubernetesCsrAuthority {
    /// Asks nobody yet. **The second is to be run.**
    pub fn new(config: KubernetesCsrConfig) -> (Self, Upkeep) {
        let manner = Manner {
            prefix: "csr-workload-",
            approval: config.approval,
            afterwards: Afterwards::Delete,
            deadline: config.deadline,
        };
        let (requests, upkeep) = Requests::new(Api::all(config.client), manner);
        let authority = Self {
            requests,
            signers: config.signers,
            roots: config.roots,
        };
        (authority, Upkeep::new(upkeep))
    }

    /// What answers are verified with.
    pub fn roots(&self) -> &SignerRoots {
        &self.roots
    }

    /// How many requests are under way.
    pub fn under_way(&self) -> usize {
        self.requests.count()
    }

    /// A certificate for a server of ours, with a new key, by the signer for requests that name none.
    ///
    /// # Errors
    /// When nobody signs, or what comes back is not what was asked for.
    pub async fn certify_server(
        &self,
        names: Vec<SubjectName>,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<(PrivateKey, IssuedChain), KubernetesSignerError> {
        let own = OwnRequest::new(names, lifetime)?;
        let signer = self.signers.resolve(None)?;
        let usages = &USAGES[..3];
        let clock = Clock::starting(now);
        let answer = self.ask(own.csr(), &signer, usages, lifetime).await?;
        let chain = answer.chain(own.csr().public_key())?;
        let roots = self.roots.of(&signer, &answer, &chain)?;
        clock.wait_for(chain.leaf()).await;
        Ok(own.accept(&chain, &roots, clock.now())?)
    }

    async fn sign_screened(
        &self,
        screened: &ScreenedRequest,
        now: OffsetDateTime,
    ) -> Result<IssuedChain, KubernetesSignerError> {
        let request = screened.request();
        let signer = self.signers.resolve(request.signer())?;
        let clock = Clock::starting(now);
        let asked = self.ask(screened.csr(), &signer, &USAGES, request.lifetime());
        let answer = asked.await?;
        let chain = answer.chain(screened.csr().public_key())?;
        let roots = self.roots.of(&signer, &answer, &chain)?;
        clock.wait_for(chain.leaf()).await;
        Ok(screened.accept(&chain, &roots, clock.now())?)
    }

    async fn ask(
        &self,
        csr: &Csr,
        signer: &str,
        usages: &[&str],
        lifetime: Duration,
    ) -> Result<Answer, KubernetesSignerError> {
        if lifetime < SHORTEST {
            return Err(KubernetesSignerError::TooShort(lifetime));
        }
        let spec = CertificateSigningRequestSpec {
            // More than the field holds is 68 years.
            expiration_seconds: Some(i32::try_from(lifetime.as_secs()).unwrap_or(i32::MAX)),
            request: ByteString(csr.to_pem().into_bytes()),
            signer_name: signer.to_owned(),
            usages: Some(usages.iter().map(|usage| (*usage).to_owned()).collect()),
            ..CertificateSigningRequestSpec::default()
        };
        self.requests
            .ask(BTreeMap::new(), |metadata| CertificateSigningRequest {
                metadata,
                spec,
                status: None,
            })
            .await
    }
}

impl CertificateAuthority for KubernetesCsrAuthority {
    /// Sends the CSR of `request` on, if it asks for exactly the one name that was granted.
    fn sign(
        &self,
        request: SigningRequest,
        now: OffsetDateTime,
    ) -> BoxFuture<'_, Result<IssuedChain, SignError>> {
        Box::pin(async move {
            let screened = ScreenedRequest::screen(request)?;
            Ok(self.sign_screened(&screened, now).await?)
        })
    }
}

impl Request for CertificateSigningRequest {
    const APPROVED_AT: &'static str = "approval";

    fn verdict(&self) -> Option<Verdict> {
        let status = self.status.as_ref()?;
        for condition in status.conditions.iter().flatten() {
            let why = || {
                let reason = condition.reason.as_deref().unwrap_or_default();
                let message = condition.message.as_deref().unwrap_or_default();
                format!("{reason}: {message}")
            };
            match condition.type_.as_str() {
                "Denied" => return Some(Err(Refusal::Denied(why()))),
                "Failed" => return Some(Err(Refusal::Failed(why()))),
                _ => {}
            }
        }
        let certificate = status.certificate.as_ref()?;
        (!certificate.0.is_empty()).then(|| Ok(Answer::new(certificate.0.clone(), None)))
    }

    fn is_decided(&self) -> bool {
        let conditions = self.status.iter().flat_map(|status| &status.conditions);
        conditions
            .flatten()
            .any(|condition| matches!(condition.type_.as_str(), "Approved" | "Denied"))
    }

    fn approve(&mut self, at: Time, reason: &str, message: &str) {
        let status = self.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        conditions.push(CertificateSigningRequestCondition {
            type_: "Approved".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            // Without it, Kubernetes never tidies up.
            last_update_time: Some(at),
            last_transition_time: None,
        });
    }

    fn asks_the_same_as(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.spec, &other.spec);
        ours.request == theirs.request
            && ours.signer_name == theirs.signer_name
            && ours.usages == theirs.usages
            && ours.expiration_seconds == theirs.expiration_seconds
    }
}

/// Istio's; a server has all but the last.
const USAGES: [&str; 4] = [
    "digital signature",
    "key encipherment",
    "server auth",
    "client auth",
];
/// What the API takes.
const SHORTEST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signer_is_named_by_the_request_within_the_domain() {
        let one = SignerNames::One("example.com/mesh".into());
        let domain = SignerNames::InDomain("example.com".into());
        let both = SignerNames::OneAndDomain {
            default: "example.com/mesh".into(),
            domain: "example.org".into(),
        };
        for none in [None, Some("")] {
            assert_eq!(one.resolve(none).unwrap(), "example.com/mesh");
            assert_eq!(both.resolve(none).unwrap(), "example.com/mesh");
            let error = domain.resolve(none).unwrap_err();
            assert!(matches!(error, KubernetesSignerError::NoSigner));
        }
        assert_eq!(domain.resolve(Some("a")).unwrap(), "example.com/a");
        assert_eq!(both.resolve(Some("a")).unwrap(), "example.org/a");
        assert_eq!(
            one.resolve(Some("a")).unwrap_err().to_string(),
            "certSignerDomain is required for signer \"a\""
        );
    }

    #[test]
    fn conditions_end_a_request_whatever_else_it_has() {
        let with = |kind: &str| -> CertificateSigningRequest {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "a"},
                "spec": {"request": "AAAA", "signerName": "example.com/a"},
                "status": {
                    "conditions": [{"type": kind, "status": "True", "reason": "r", "message": "m"}],
                    "certificate": "QQ==",
                },
            }))
            .unwrap()
        };
        let why = || "r: m".to_owned();
        assert_eq!(with("Denied").verdict(), Some(Err(Refusal::Denied(why()))));
        assert_eq!(with("Failed").verdict(), Some(Err(Refusal::Failed(why()))));
        let answer = Answer::new(b"A".to_vec(), None);
        assert_eq!(with("Approved").verdict(), Some(Ok(answer)));
        assert!(with("Approved").is_decided() && with("Denied").is_decided());
        let mut open = CertificateSigningRequest::default();
        assert!(open.verdict().is_none() && !open.is_decided());
        let at = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        open.approve(at, "r", "m");
        assert!(open.verdict().is_none() && open.is_decided());
    }
}
