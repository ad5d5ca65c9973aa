//! A CA whose key is made here and certified by another CA: by asking it, or by files that somebody drops.
//!
//! Each renewal brings a new key. A key that leaks is then worth no more than its certificate, and what the old key has
//! signed goes on leading to the root, because each workload sends the intermediate that signed it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ca_core::crypto::AWS_LC_RS;
use ca_core::{
    AuthorityState, AuthorityStore, Backoff, BundleError, BundleStore, Certificate, Csr,
    DirectoryStore, IssuedChain, KeyCertBundle, KeyKind, PrivateKey, RenewalPolicy,
    SigningKey as _, StoreError, Stored, TrustBroken, TrustBundle, TrustDomain, create_ca_csr_pem,
    create_csr_pem, random_unit,
};
use ca_ra::{IstioUpstream, ReturnedError, UpstreamError, accept_authority};
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

use super::rotator::RotationStep;
use super::subordinate::key_name;
use crate::config::{UpstreamCa, UpstreamSource};
use crate::report::shown;

mod awaiting;
mod dropped;
mod pending;
mod situation;

pub(crate) use awaiting::Meanwhile;
use dropped::{DropFolder, Dropped};
pub use pending::FileError;
use pending::PendingKey;
pub(crate) use situation::Situation;

/// The handle to the task. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamHandle {
    orders: mpsc::Sender<Order>,
    pub(crate) situation: Situation,
}

type Order = (RotationStep, oneshot::Sender<Result<String, String>>);

impl UpstreamHandle {
    /// Has a step done, and tells how things stand then.
    pub(crate) async fn ask(&self, step: RotationStep) -> Result<String, String> {
        let (reply, answer) = oneshot::channel();
        let gone = "the server is shutting down";
        self.orders.send((step, reply)).await.map_err(|_| gone)?;
        answer.await.map_err(|_| gone)?
    }
}

/// Owns the store, the key and its certificate.
#[derive(Debug)]
pub(crate) struct Upstream {
    source: Source,
    store: DirectoryStore,
    /// What the store holds: also a certificate that is over, for its roots.
    stored: Option<Stored>,
    /// What is signed from; empty until there is a certificate.
    bundles: Option<BundleStore>,
    pending: PendingKey,
    trust_domain: TrustDomain,
    lifetime: Duration,
    look_interval: Duration,
    backoff: Backoff,
    renew_at: OffsetDateTime,
    look_at: OffsetDateTime,
    /// When a certificate begins that was dropped before that.
    begins_at: Option<OffsetDateTime>,
    situation: Situation,
    orders: mpsc::Receiver<Order>,
}

/// Where certificates come from.
#[derive(Debug)]
enum Source {
    Ask(Box<IstioUpstream>),
    Drop(DropFolder),
}

impl Upstream {
    /// Takes up what the store and the folders hold.
    pub(crate) async fn open(
        config: UpstreamCa,
        store: DirectoryStore,
        pending: &std::path::Path,
        trust_domain: TrustDomain,
        now: OffsetDateTime,
    ) -> Result<(Self, UpstreamHandle), OpenError> {
        let source = match config.source {
            UpstreamSource::Ask(upstream) => {
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                Source::Ask(Box::new(IstioUpstream::new(upstream, provider)?))
            }
            UpstreamSource::Drop(folder) => Source::Drop(DropFolder::follow(folder)?),
        };
        let stored = store.load().await?;
        if let Some(stored) = &stored
            && stored.state.signing_certificate().is_self_issued()
        {
            return Err(OpenError::SelfSigned);
        }
        let mut pending = PendingKey::at(pending, config.key_kind)?;
        if let Some(stored) = &stored {
            // Left over if we were killed when the certificate was stored already.
            pending.forget(stored.state.key())?;
        }
        let (sender, orders) = mpsc::channel(4);
        let situation = match &source {
            Source::Ask(upstream) => {
                let address = upstream.address().to_string();
                let wanted = format!("a certificate for this CA from the upstream CA at {address}");
                Situation::new(wanted, address)
            }
            Source::Drop(folder) => Situation::new(
                format!("a certificate for this CA: {}", folder.wanted()),
                folder.shown(),
            ),
        };
        let handle = UpstreamHandle {
            orders: sender,
            situation: situation.clone(),
        };
        let mut upstream = Self {
            source,
            store,
            stored,
            bundles: None,
            pending,
            trust_domain,
            lifetime: config.lifetime,
            look_interval: config.check_interval,
            backoff: Backoff::new(FIRST_RETRY, LONGEST_WAIT),
            renew_at: now,
            look_at: now,
            begins_at: None,
            situation,
            orders,
        };
        upstream.take_up(now);
        // What was dropped while we were away; where a certificate is missing, it is looked at when that is asked for.
        if let (Source::Drop(folder), Some(_)) = (&upstream.source, &upstream.bundles) {
            let dropped = folder.current();
            if let Err(error) = upstream.consider(dropped, now).await {
                upstream.report(now, &error);
            }
        }
        Ok((upstream, handle))
    }

    fn take_up(&mut self, now: OffsetDateTime) {
        let Some(stored) = &self.stored else {
            return;
        };
        match stored.state.bundle(now) {
            Ok(bundle) => {
                // A renewal that was under way goes on.
                if !self.pending.is_there() {
                    self.renew_at = renewal_of(&bundle, now);
                }
                self.bundles = Some(BundleStore::new(bundle));
            }
            Err(error) => self
                .situation
                .failed(now, format!("the certificate in the store: {error}")),
        }
        self.situation.renewal(self.renew_at);
    }

    /// What is signed from, if there is a certificate.
    pub(crate) fn bundles(&self) -> Option<&BundleStore> {
        self.bundles.as_ref()
    }

    /// Works until there is a certificate.
    async fn obtain(&mut self) {
        while self.bundles.is_none() {
            self.turn().await;
        }
    }

    /// Works for as long as the server runs.
    pub(crate) async fn run(mut self) {
        loop {
            self.turn().await;
        }
    }

    /// Waits for the next thing to do, and does it.
    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: it acts by the real clock"
    )]
    async fn turn(&mut self) {
        let due = match (&self.source, &self.bundles) {
            (Source::Ask(_), Some(_)) => self.renew_at.min(self.look_at),
            _ => self.renew_at,
        };
        let due = self.begins_at.map_or(due, |begins| begins.min(due));
        // Never asleep for long: a clock that jumps, or a machine that was suspended, is noticed.
        let left = Duration::try_from(due - OffsetDateTime::now_utc()).unwrap_or_default();
        tokio::select! {
            Some((step, reply)) = self.orders.recv() => {
                let now = OffsetDateTime::now_utc();
                let done = self.obey(step, now).await;
                // Whoever asked may have gone: the step is done all the same.
                let _ = reply.send(done.map(|()| self.to_string()));
            }
            dropped = self.source.changed() => {
                let now = OffsetDateTime::now_utc();
                if let Err(error) = self.consider(dropped, now).await {
                    self.report(now, &error);
                }
            }
            () = tokio::time::sleep(left.min(LONGEST_WAIT)) => self.act(OffsetDateTime::now_utc()).await,
        }
    }

    async fn act(&mut self, now: OffsetDateTime) {
        let done = if self.begins_at.is_some_and(|begins| now >= begins) {
            self.consider_again(now).await
        } else if now >= self.renew_at {
            self.renew(now).await
        } else if now >= self.look_at && self.bundles.is_some() {
            self.look(now).await
        } else {
            return;
        };
        match done {
            Ok(()) => self.backoff.reset(),
            Err(error) => {
                let again = now + self.backoff.next(random_unit());
                if now >= self.renew_at {
                    self.renew_at = again;
                    self.situation.renewal(again);
                } else {
                    self.look_at = again;
                }
                self.report(now, &error);
            }
        }
    }

    async fn obey(&mut self, step: RotationStep, now: OffsetDateTime) -> Result<(), String> {
        match step {
            RotationStep::Status => Ok(()),
            RotationStep::Renew => self.renew(now).await.map_err(|error| {
                self.report(now, &error);
                error.to_string()
            }),
            _ => Err("this CA is certified by another, where its root is replaced: only status and renew".into()),
        }
    }

    /// Asks for a certificate for the next key, or puts a request where somebody will find it.
    async fn renew(&mut self, now: OffsetDateTime) -> Result<(), Fault> {
        let key = self.pending.key()?;
        let name = format!("intermediate {}", key_name(key.public_key()));
        let text = create_ca_csr_pem(&key, self.trust_domain.as_str(), &name)?;
        match &mut self.source {
            Source::Ask(upstream) => {
                let address = upstream.address().to_string();
                self.situation
                    .awaits(format!("a certificate from {address}"));
                let csr = Csr::from_pem(text.as_bytes())?;
                let issued = upstream.certify_authority(&csr, self.lifetime, now).await?;
                self.install(key, issued, now).await
            }
            Source::Drop(folder) => {
                folder.put_request(&text)?;
                self.situation.awaits(folder.wanted());
                tracing::info!(folder = %folder.shown(), "a certificate is wanted for ca.csr");
                // The files tell when it is there; till then there is nothing to do but wait.
                self.renew_at = now + LONGEST_LIFE;
                let dropped = folder.current();
                self.consider(dropped, now).await
            }
        }
    }

    /// Judges what somebody has dropped: for the key that is waiting, or for the one in use, whose roots may change.
    async fn consider(
        &mut self,
        dropped: Result<Arc<Dropped>, String>,
        now: OffsetDateTime,
    ) -> Result<(), Fault> {
        let dropped = dropped.map_err(Fault::Dropped)?;
        let Some(chain) = &dropped.chain else {
            return Ok(());
        };
        let roots = dropped.roots.as_ref().ok_or(Fault::NoRoots)?;
        let state = self.stored.as_ref().map(|stored| &stored.state);
        let certified = chain.leaf().public_key();
        let in_use = state
            .map(AuthorityState::key)
            .filter(|key| key.public_key() == certified);
        let key = match in_use {
            Some(key) => key.clone(),
            None if !self.pending.is_there() => return Err(Fault::NothingAsked),
            None => self.pending.key()?,
        };
        let issued = accept_authority(key.public_key(), None, chain, roots, now)?;
        let known = state.is_some_and(|state| {
            state.chain() == issued.chain() && state.roots() == issued.roots()
        });
        // What is known is judged again all the same where it does not sign: its time may have come.
        if known && self.bundles.is_some() {
            return Ok(());
        }
        self.install(key, issued, now).await
    }

    /// Files tell that they have changed, and not that their time has come.
    async fn consider_again(&mut self, now: OffsetDateTime) -> Result<(), Fault> {
        self.begins_at = None;
        match &self.source {
            Source::Ask(_) => Ok(()),
            Source::Drop(folder) => {
                let dropped = folder.current();
                self.consider(dropped, now).await
            }
        }
    }

    /// Follows the roots of the upstream, and the root that it signs under. There is no way to ask for these alone: an
    /// ordinary certificate comes with both.
    async fn look(&mut self, now: OffsetDateTime) -> Result<(), Fault> {
        let (Source::Ask(upstream), Some(stored)) = (&self.source, &self.stored) else {
            return Ok(());
        };
        let thrown_away = PrivateKey::generate_with(KeyKind::EcdsaP256, &AWS_LC_RS)?;
        let csr = Csr::from_pem(create_csr_pem(&thrown_away, &[])?.as_bytes())?;
        let seen = upstream.look(&csr, LOOK_LIFETIME, now).await?;
        self.look_at = now + self.look_interval;
        let state = &stored.state;
        let shared = seen.roots().certificates().iter().any(|root| {
            let leads_to = |chain: &IssuedChain, root: &Certificate| {
                let alone = TrustBundle::new([root.clone()]);
                alone.is_ok_and(|alone| chain.chain().verify(&alone, now).is_ok())
            };
            leads_to(&seen, root) && self.leads_to(root, now)
        });
        if !shared {
            tracing::info!("the upstream CA signs under another root: the certificate is renewed");
            return self.renew(now).await;
        }
        if state.roots() == seen.roots() {
            return Ok(());
        }
        let same = IssuedChain::new(state.chain().clone(), seen.roots().clone());
        let key = state.key().clone();
        self.install(key, same, now).await
    }

    /// Whether what we sign leads to this root alone.
    fn leads_to(&self, root: &Certificate, now: OffsetDateTime) -> bool {
        let Some(state) = self.stored.as_ref().map(|stored| &stored.state) else {
            return false;
        };
        TrustBundle::new([root.clone()]).is_ok_and(|roots| {
            let key = Arc::new(state.key().clone());
            KeyCertBundle::new(key, state.chain().clone(), roots, now).is_ok()
        })
    }

    /// Verified before it is kept, kept before it is used: a crash leaves a state that works, and what is in use stays
    /// in use until all of that is done.
    async fn install(
        &mut self,
        key: PrivateKey,
        issued: IssuedChain,
        now: OffsetDateTime,
    ) -> Result<(), Fault> {
        let state = AuthorityState::new(key, issued.chain().clone(), issued.roots().clone());
        let bundle = state.bundle(now)?;
        if let Some(stored) = &self.stored {
            stored.state.roots().check_successor(bundle.roots())?;
        }
        let revision = self.stored.as_ref().map(|stored| stored.revision.clone());
        let stored = self.store.save(state, revision).await?;
        // A file that stays behind is recognised at the next start; what is stored is in use from here on.
        let is_new_key = self
            .pending
            .forget(stored.state.key())
            .unwrap_or_else(|error| {
                tracing::warn!("the key that waited: {error}");
                true
            });
        self.stored = Some(stored);
        if is_new_key || self.bundles.is_none() {
            self.renew_at = renewal_of(&bundle, now);
        }
        self.look_at = now + self.look_interval;
        if self.pending.is_there() {
            self.situation.recovered();
        } else {
            self.situation.settled(self.renew_at);
        }
        let signing = bundle.signing_certificate().clone();
        let roots = bundle.roots().certificates().len();
        match &self.bundles {
            Some(bundles) => bundles.replace(bundle),
            None => self.bundles = Some(BundleStore::new(bundle)),
        }
        if let Source::Drop(folder) = &self.source
            && is_new_key
        {
            folder.take_request_away();
        }
        tracing::info!(
            serial = signing.serial(),
            not_after = shown(signing.not_after()),
            roots,
            next_renewal = shown(self.renew_at),
            "certified by the upstream CA: in use from now on"
        );
        Ok(())
    }

    fn report(&mut self, now: OffsetDateTime, fault: &Fault) {
        self.begins_at = fault.begins_at().filter(|begins| *begins > now);
        self.situation.failed(now, fault.to_string());
        tracing::error!("the certificate of this CA: {fault}");
    }
}

impl Source {
    /// The next thing that was dropped, or why it does not read.
    async fn changed(&mut self) -> Result<Arc<Dropped>, String> {
        match self {
            Self::Ask(_) => std::future::pending().await,
            Self::Drop(folder) => folder.changed().await,
        }
    }
}

/// As `ca-server rotate status` prints it.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kind         intermediate below {}",
            self.situation.upstream()
        )?;
        if let Some(stored) = self.stored.as_ref() {
            let line = |word: &str, certificate: &Certificate| {
                let end = shown(certificate.not_after());
                format!(
                    "\n{word:12} until {end}  SHA-256 {}",
                    certificate.fingerprint()
                )
            };
            f.write_str(&line("certificate", stored.state.signing_certificate()))?;
            for root in stored.state.roots().certificates() {
                f.write_str(&line("root", root))?;
            }
        }
        self.situation.fmt(f)
    }
}

/// Half of the life left, by the dates of the whole path; never at once, whatever they are.
fn renewal_of(bundle: &KeyCertBundle, now: OffsetDateTime) -> OffsetDateTime {
    let from = bundle.signing_certificate().not_before();
    let at = RenewalPolicy::default().renew_at(from, bundle.not_after(), random_unit());
    at.max(now + FIRST_RETRY)
}

/// Why there is no new certificate. What was in use still is.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("what was dropped is not taken: {0}")]
    Dropped(String),
    #[error("what was dropped is not taken: ca-cert.pem is there and root-cert.pem is not")]
    NoRoots,
    #[error(
        "what was dropped is not taken: ca-cert.pem is for another key than the one in use, and nothing was asked for"
    )]
    NothingAsked,
    #[error("the certificate is not taken: {0}")]
    Returned(#[from] ReturnedError),
    #[error("the certificate is not taken: {0}")]
    Bundle(#[from] BundleError),
    #[error("the roots of the upstream CA are not taken: {0}")]
    Roots(#[from] TrustBroken),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Key(#[from] ca_core::KeyError),
    #[error(transparent)]
    Csr(#[from] ca_core::CsrError),
    #[error(transparent)]
    CreateCsr(#[from] ca_core::CreateCsrError),
}

impl Fault {
    /// From when on a certificate that somebody has dropped is valid, if its dates are why it is not taken.
    fn begins_at(&self) -> Option<OffsetDateTime> {
        match self {
            Self::Returned(ReturnedError::NotValidNow { from, .. }) => Some(*from),
            _ => None,
        }
    }
}

/// Why a CA below another does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The other CA cannot be asked with these files.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key that waits for its certificate cannot be read, or the folder cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder of drops cannot be followed.
    #[error("upstream CA files: {0}")]
    Follow(#[from] ca_core::files::FollowError),
    /// The data folder has been used without an upstream.
    #[error(
        "the data folder holds a self-signed CA, and an upstream CA is configured: its roots would change in one step; use another --data-dir"
    )]
    SelfSigned,
}

/// How a look is certified: it is thrown away at once.
const LOOK_LIFETIME: Duration = Duration::from_secs(300);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Longer than a process lives.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
