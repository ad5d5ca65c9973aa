//! cert-manager: `CertificateRequest`.

use std::collections::BTreeMap;
use std::time::Duration;

use ca_core::{
    BoxFuture, CertificateAuthority, Csr, IssuedChain, PrivateKey, SignError, SigningRequest,
    SubjectName, format_duration,
};
use k8s_openapi::ByteString;
use kube::{Api, Client};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::answer::{Answer, Clock};
use super::certificate_request::{CertificateRequest, CertificateRequestSpec};
use super::error::KubernetesSignerError;
use super::issuer::{CurrentIssuer, IssuerRef, Issuers};
use super::requests::{Afterwards, Approval, Manner, Requests};
use super::signer_roots::SignerRoots;
use super::upkeep::Upkeep;
use crate::own_request::OwnRequest;
use crate::screen::ScreenedRequest;

/// Which issuer is asked, and how.
#[derive(Clone)]
pub struct CertManagerConfig {
    /// The cluster.
    pub client: Client,
    /// Where the requests are made.
    pub namespace: String,
    /// Who signs.
    pub issuers: Issuers,
    /// Who approves; cert-manager's own approver, mostly.
    pub approval: Approval,
    /// What becomes of the requests.
    pub afterwards: Afterwards,
    /// For each request, beside the one with its identity.
    pub annotations: BTreeMap<String, String>,
    /// What answers are verified with; signers are named as [`IssuerRef`] does it in text.
    pub roots: SignerRoots,
    /// How long a request may take, from creation to certificate.
    pub deadline: Duration,
}

/// Issuers of cert-manager, asked as istio-csr asks them: same names, annotations and specification.
///
/// All requests wait on one watch, each with a deadline. A request that is denied, invalid, failed or deleted ends at once.
/// Which issuer signs can change while requests are under way: each keeps the one that it began with.
///
/// ```no_run
/// use std::collections::BTreeMap;
/// use std::time::Duration;
///
/// use ca_core::{CertificateAuthority as _, Csr, SigningRequest};
/// use ca_ra::{Afterwards, Approval, CertManagerAuthority, CertManagerConfig, Issuers, SignerRoots};
///
/// # async fn example(
/// #     client: kube::Client, csr_pem: String, now: time::OffsetDateTime,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let (authority, upkeep) = CertManagerAuthority::new(CertManagerConfig {
///     client,
///     namespace: "istio-system".into(),
///     issuers: Issuers::Fixed("Issuer.cert-manager.io/istio-ca".parse()?),
///     approval: Approval::Others,
///     afterwards: Afterwards::Delete,
///     annotations: BTreeMap::new(),
///     roots: SignerRoots::in_file("/var/run/secrets/istio-csr/ca.pem".as_ref())?,
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
pub struct CertManagerAuthority {
    requests: Requests<CertificateRequest>,
    issuer: CurrentIssuer,
    annotations: BTreeMap<String, String>,
    roots: SignerRoots,
}

impl CertManagerAuthority {
    /// Asks nobody yet. **The second is to be run.**
    pub fn new(config: CertManagerConfig) -> (Self, Upkeep) {
        let manner = Manner {
            prefix: "istio-csr-",
            approval: config.approval,
            afterwards: config.afterwards,
            deadline: config.deadline,
        };
        let api = Api::namespaced(config.client.clone(), &config.namespace);
        let (requests, following) = Requests::new(api, manner);
        let (issuer, choosing) = CurrentIssuer::new(config.client, config.issuers);
        let authority = Self {
            requests,
            issuer,
            annotations: config.annotations,
            roots: config.roots,
        };
        let upkeep = Upkeep::new(async {
            tokio::join!(following, choosing);
        });
        (authority, upkeep)
    }

    /// What answers are verified with.
    pub fn roots(&self) -> &SignerRoots {
        &self.roots
    }

    /// How many requests are under way.
    pub fn under_way(&self) -> usize {
        self.requests.count()
    }

    /// The issuer that signs, and each that follows it.
    pub fn issuer(&self) -> watch::Receiver<Option<IssuerRef>> {
        self.issuer.changes()
    }

    /// A certificate for a server of ours, with a new key.
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
        let clock = Clock::starting(now);
        let asked = self.ask(own.csr(), "istio-csr-serving", &USAGES[1..], lifetime);
        let (answer, issuer) = asked.await?;
        let chain = answer.chain(own.csr().public_key())?;
        let roots = self.roots.of(&issuer.to_string(), &answer, &chain)?;
        clock.wait_for(chain.leaf()).await;
        Ok(own.accept(&chain, &roots, clock.now())?)
    }

    async fn sign_screened(
        &self,
        screened: &ScreenedRequest,
        now: OffsetDateTime,
    ) -> Result<IssuedChain, KubernetesSignerError> {
        let clock = Clock::starting(now);
        let (identity, lifetime) = (screened.name().as_str(), screened.request().lifetime());
        let asked = self.ask(screened.csr(), identity, &USAGES, lifetime);
        let (answer, issuer) = asked.await?;
        let chain = answer.chain(screened.csr().public_key())?;
        let roots = self.roots.of(&issuer.to_string(), &answer, &chain)?;
        clock.wait_for(chain.leaf()).await;
        Ok(screened.accept(&chain, &roots, clock.now())?)
    }

    async fn ask(
        &self,
        csr: &Csr,
        identity: &str,
        usages: &[&str],
        lifetime: Duration,
    ) -> Result<(Answer, IssuerRef), KubernetesSignerError> {
        let issuer = self
            .issuer
            .get()
            .ok_or_else(|| KubernetesSignerError::NoIssuer(self.issuer.place()))?;
        let spec = CertificateRequestSpec {
            request: ByteString(csr.to_pem().into_bytes()),
            duration: Some(format_duration(lifetime)),
            is_ca: false,
            usages: usages.iter().map(|usage| (*usage).to_owned()).collect(),
            issuer_ref: issuer.clone(),
        };
        // As in istio-csr, an operator's annotation wins.
        let mut annotations = BTreeMap::from([(IDENTITIES.to_owned(), identity.to_owned())]);
        annotations.extend(self.annotations.clone());
        let asked = self.requests.ask(annotations, |metadata| {
            CertificateRequest::new(metadata, spec)
        });
        Ok((asked.await?, issuer))
    }
}

impl CertificateAuthority for CertManagerAuthority {
    /// Sends the CSR of `request` on, if it asks for exactly the one name that was granted. Which issuer signs is not for the
    /// request to say.
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

/// istio-csr's; a server has the second alone.
const USAGES: [&str; 2] = ["client auth", "server auth"];
const IDENTITIES: &str = "istio.cert-manager.io/identities";
