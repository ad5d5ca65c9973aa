//! A signer that is asked for every certificate: the server is a registration authority, and has no key to sign with.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ca_core::files::FollowError;
use ca_core::{
    Backoff, BoxFuture, CertificateAuthority, Csr, IssuedChain, KeyKind, PrivateKey, SignError,
    SigningRequest, SubjectName, TrustBundle, create_csr_pem, random_unit,
};
use ca_ra::{
    CertManagerAuthority, CertManagerConfig, IstioUpstream, KubernetesCsrAuthority,
    KubernetesCsrConfig, SignerRoots, UpstreamError,
};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::upstream::{Meanwhile, Situation};
use crate::config::{RegistrationConfig, RootFiles, SignerConfig};
use crate::kubernetes::Cluster;

/// Who is asked.
#[derive(Debug)]
enum Signer {
    KubernetesCsr(KubernetesCsrAuthority),
    CertManager(CertManagerAuthority),
    Istio(IstioUpstream),
}

/// A signer whose roots are known.
#[derive(Debug)]
pub(crate) struct Registration {
    signer: Signer,
    situation: Situation,
    roots: watch::Sender<TrustBundle>,
    /// What answers have brought along. Locked for a look.
    learned: Mutex<Option<TrustBundle>>,
    /// What it is asked for where only its answer tells its roots.
    names: Vec<SubjectName>,
}

/// What runs for as long as the signer is asked, and ends with this.
pub(crate) type Errands = JoinSet<()>;

impl Registration {
    /// Gets to know the signer: where nothing else tells its roots, and where it is to certify our listeners too, it is asked
    /// for a certificate of `names` until it has made one. `meanwhile` says so.
    pub(crate) async fn open(
        config: RegistrationConfig,
        cluster: Option<&Cluster>,
        names: &[SubjectName],
        certifies_listeners: bool,
        meanwhile: Meanwhile<'_>,
    ) -> Result<(Arc<Self>, Errands), RegistrationError> {
        let mut errands = JoinSet::new();
        let (signer, name) = signer(config, cluster, &mut errands)?;
        let situation = Situation::new(format!("a certificate by {name}"), name);
        let known = signer.configured_roots().and_then(SignerRoots::known);
        let mut learned = None;
        if known.is_none() || certifies_listeners {
            let asking = first_answer(&signer, names, &situation);
            let asked = meanwhile.answer_until("registration authority", situation.clone(), asking);
            let asked = Box::pin(asked).await;
            let roots = asked.map_err(RegistrationError::Waiting)?;
            learned = signer.may_teach(&roots).then_some(roots);
        }
        let all = [known, learned.clone()].into_iter().flatten();
        let all = all.reduce(|all, more| all.merge(&more));
        let registration = Arc::new(Self {
            signer,
            situation,
            roots: watch::Sender::new(all.ok_or(RegistrationError::NoRoots)?),
            learned: Mutex::new(learned),
            names: names.to_vec(),
        });
        errands.spawn(Arc::clone(&registration).keep_roots_current());
        errands.spawn(Arc::clone(&registration).meet_issuers());
        Ok((registration, errands))
    }

    /// What the mesh is to trust.
    pub(crate) fn roots(&self) -> watch::Receiver<TrustBundle> {
        self.roots.subscribe()
    }

    /// Who signs, and what went wrong last.
    pub(crate) fn situation(&self) -> &Situation {
        &self.situation
    }

    /// How many requests the signer has not answered yet, where that is known.
    pub(crate) fn under_way(&self) -> Option<usize> {
        match &self.signer {
            Signer::KubernetesCsr(signer) => Some(signer.under_way()),
            Signer::CertManager(signer) => Some(signer.under_way()),
            Signer::Istio(_) => None,
        }
    }

    /// Who signs now, where that may change.
    pub(crate) fn issuer(&self) -> Option<String> {
        match &self.signer {
            Signer::CertManager(signer) => {
                let issuer = signer.issuer();
                let issuer = issuer.borrow().as_ref().map(ToString::to_string);
                Some(issuer.unwrap_or_else(|| "none".into()))
            }
            Signer::KubernetesCsr(_) | Signer::Istio(_) => None,
        }
    }

    /// A certificate with a new key, for a listener of ours.
    pub(crate) async fn certify_server(
        &self,
        names: Vec<SubjectName>,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<(PrivateKey, IssuedChain), SignError> {
        let certified = self.signer.certify_server(names, lifetime, now).await;
        self.take_note(certified.as_ref().map(|(_, issued)| issued), now);
        certified
    }

    fn take_note(&self, outcome: Result<&IssuedChain, &SignError>, now: OffsetDateTime) {
        match outcome {
            Ok(issued) => {
                self.situation.recovered();
                self.learn(issued.roots());
            }
            // The caller's own fault says nothing of the signer.
            Err(SignError::Refused(_)) => {}
            Err(error) => self.situation.failed(now, error.to_string()),
        }
    }

    fn learn(&self, roots: &TrustBundle) {
        if !self.signer.may_teach(roots) {
            return;
        }
        let is_news = {
            let mut learned = self.learned();
            let known = learned.clone();
            let all = match (&self.signer, known) {
                // Each answer has all roots of that CA: those that it leaves out are to be forgotten.
                (Signer::Istio(_), _) | (_, None) => roots.clone(),
                (_, Some(known)) => known.merge(roots),
            };
            let is_news = learned.as_ref() != Some(&all);
            *learned = Some(all);
            is_news
        };
        if is_news {
            self.publish();
        }
    }

    fn publish(&self) {
        let known = self.signer.configured_roots().and_then(SignerRoots::known);
        let learned = self.learned().clone();
        let all = [known, learned].into_iter().flatten();
        let Some(all) = all.reduce(|all, more| all.merge(&more)) else {
            return;
        };
        self.roots.send_if_modified(|roots| {
            let is_news = *roots != all;
            if is_news {
                tracing::info!(
                    roots = all.certificates().len(),
                    "the signer's roots have changed: trusted from now on"
                );
                *roots = all;
            }
            is_news
        });
    }

    fn learned(&self) -> MutexGuard<'_, Option<TrustBundle>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on for ever.
    async fn keep_roots_current(self: Arc<Self>) {
        loop {
            match &self.signer {
                Signer::Istio(upstream) => {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    match look(upstream).await {
                        Ok(roots) => self.learn(&roots),
                        Err(error) => tracing::warn!("no look at the signer's roots: {error}"),
                    }
                }
                Signer::KubernetesCsr(signer) => signer.roots().changed().await,
                Signer::CertManager(signer) => signer.roots().changed().await,
            }
            self.publish();
        }
    }
}

impl Registration {
    /// Asks each issuer that takes over for a certificate, where only its answer tells its roots: whoever publishes them must know
    /// them before workloads show what another replica had signed. Goes on for ever.
    async fn meet_issuers(self: Arc<Self>) {
        let Signer::CertManager(signer) = &self.signer else {
            return std::future::pending().await;
        };
        if !signer.roots().may_learn() {
            return std::future::pending().await;
        }
        let mut issuer = signer.issuer();
        loop {
            if issuer.changed().await.is_err() {
                // Whoever would tell is gone: at the end of the process.
                return std::future::pending().await;
            }
            if issuer.borrow_and_update().is_none() {
                continue;
            }
            tokio::select! {
                () = self.meet() => {}
                // Another one already. It is met next.
                Ok(()) = async { issuer.clone().changed().await } => {}
            }
        }
    }

    /// Until it has made a certificate for us.
    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: it is asked now, and again later"
    )]
    async fn meet(&self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_WAIT);
        loop {
            let now = OffsetDateTime::now_utc();
            let asked = self.certify_server(self.names.clone(), PROBE_LIFETIME, now);
            match asked.await {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!("the roots of another issuer are not known yet: {error}");
                }
            }
            tokio::time::sleep(backoff.next(random_unit())).await;
        }
    }
}

impl CertificateAuthority for Registration {
    fn sign(
        &self,
        request: SigningRequest,
        now: OffsetDateTime,
    ) -> BoxFuture<'_, Result<IssuedChain, SignError>> {
        Box::pin(async move {
            let signed = match &self.signer {
                Signer::KubernetesCsr(signer) => signer.sign(request, now).await,
                Signer::CertManager(signer) => signer.sign(request, now).await,
                Signer::Istio(signer) => signer.sign(request, now).await,
            };
            self.take_note(signed.as_ref(), now);
            signed
        })
    }
}

impl Signer {
    /// Where roots do not come from the answers alone.
    fn configured_roots(&self) -> Option<&SignerRoots> {
        match self {
            Self::KubernetesCsr(signer) => Some(signer.roots()),
            Self::CertManager(signer) => Some(signer.roots()),
            Self::Istio(_) => None,
        }
    }

    /// Whether `roots`, which came with an answer, are news and to be trusted. Those that files have are known.
    fn may_teach(&self, roots: &TrustBundle) -> bool {
        self.configured_roots().is_none_or(|configured| {
            configured.may_learn()
                && !configured
                    .known()
                    .is_some_and(|known| known.contains_all(roots))
        })
    }

    async fn certify_server(
        &self,
        names: Vec<SubjectName>,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<(PrivateKey, IssuedChain), SignError> {
        let certified = match self {
            Self::KubernetesCsr(signer) => signer.certify_server(names, lifetime, now).await,
            Self::CertManager(signer) => signer.certify_server(names, lifetime, now).await,
            Self::Istio(signer) => {
                let address = signer.address();
                return Err(SignError::Declined(format!(
                    "the CA at {address} gives its callers their own names only"
                )));
            }
        };
        Ok(certified?)
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.situation.upstream())
    }
}

fn signer(
    config: RegistrationConfig,
    cluster: Option<&Cluster>,
    errands: &mut Errands,
) -> Result<(Signer, String), RegistrationError> {
    let client = || cluster.map(|cluster| cluster.client.clone());
    let deadline = config.deadline;
    Ok(match config.signer {
        SignerConfig::KubernetesCsr {
            signers,
            approval,
            roots,
        } => {
            let name = format!("Kubernetes signer {signers}");
            let (signer, upkeep) = KubernetesCsrAuthority::new(KubernetesCsrConfig {
                client: client().ok_or(RegistrationError::NoCluster)?,
                signers,
                approval,
                roots: follow(&roots)?,
                deadline,
            });
            errands.spawn(upkeep.run());
            (Signer::KubernetesCsr(signer), name)
        }
        SignerConfig::CertManager {
            namespace,
            issuers,
            approval,
            afterwards,
            annotations,
            roots,
        } => {
            let name = format!("cert-manager {issuers}");
            let (signer, upkeep) = CertManagerAuthority::new(CertManagerConfig {
                client: client().ok_or(RegistrationError::NoCluster)?,
                namespace,
                issuers,
                approval,
                afterwards,
                annotations,
                roots: follow(&roots)?,
                deadline,
            });
            errands.spawn(upkeep.run());
            (Signer::CertManager(signer), name)
        }
        SignerConfig::Istio(upstream) => {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let upstream = IstioUpstream::new(upstream, provider)
                .map_err(|cause| RegistrationError::Upstream(Box::new(cause)))?;
            let name = upstream.address().to_string();
            (Signer::Istio(upstream.with_deadline(deadline)), name)
        }
    })
}

/// What answers of a signer are verified with.
pub(crate) fn follow(files: &RootFiles) -> Result<SignerRoots, RegistrationError> {
    let mut roots = match &files.common {
        Some(path) => SignerRoots::in_file(path).map_err(RegistrationError::Roots)?,
        None => SignerRoots::from_answers(),
    };
    for (signer, path) in &files.by_signer {
        roots = roots
            .with_signer(signer, path)
            .map_err(RegistrationError::Roots)?;
    }
    Ok(roots)
}

/// The roots of the first certificate that the signer makes for us. It may take days: until somebody has set the signer up.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge: it is asked now, and again later"
)]
async fn first_answer(
    signer: &Signer,
    names: &[SubjectName],
    situation: &Situation,
) -> TrustBundle {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_WAIT);
    loop {
        let now = OffsetDateTime::now_utc();
        let answer = match signer {
            Signer::Istio(upstream) => look(upstream).await,
            _ => signer
                .certify_server(names.to_vec(), PROBE_LIFETIME, now)
                .await
                .map(|(_, issued)| issued.roots().clone()),
        };
        match answer {
            Ok(roots) => {
                situation.recovered();
                return roots;
            }
            Err(error) => {
                tracing::warn!(signer = situation.upstream(), "no certificate yet: {error}");
                situation.failed(now, error.to_string());
            }
        }
        tokio::time::sleep(backoff.next(random_unit())).await;
    }
}

/// The roots that a CA hands out, learned as every client of it learns them.
#[expect(clippy::disallowed_methods, reason = "an edge: it is looked at now")]
async fn look(upstream: &IstioUpstream) -> Result<TrustBundle, SignError> {
    let failed = |cause: &dyn std::error::Error| SignError::Unavailable(cause.to_string());
    let key = PrivateKey::generate(KeyKind::EcdsaP256)?;
    let pem = create_csr_pem(&key, &[]).map_err(|e| failed(&e))?;
    let csr = Csr::from_pem(pem.as_bytes()).map_err(|e| failed(&e))?;
    let now = OffsetDateTime::now_utc();
    let answer = upstream.look(&csr, PROBE_LIFETIME, now).await?;
    Ok(answer.roots().clone())
}

/// Why there is no signer to ask.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// The signer is in a cluster, and there is none.
    #[error("the signer is asked through a Kubernetes API server: --kubernetes")]
    NoCluster,
    /// Its roots cannot be read.
    #[error("roots of the signer: {0}")]
    Roots(#[source] FollowError),
    /// Nothing is known that the mesh could trust.
    #[error("the signer has no roots")]
    NoRoots,
    /// Files for the CA that is asked are not good.
    #[error(transparent)]
    Upstream(Box<UpstreamError>),
    /// Nothing can be answered while the signer is asked for the first time.
    #[error("while waiting for the signer: {0}")]
    Waiting(std::io::Error),
}

/// Of a certificate that is asked for to see how the signer signs. The shortest that cert-manager's webhook and Kubernetes
/// both take.
const PROBE_LIFETIME: Duration = Duration::from_secs(3600);
const LOOK_INTERVAL: Duration = Duration::from_secs(3600);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
