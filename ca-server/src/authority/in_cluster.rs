//! The CA of a server in a cluster: which Secret holds it, taken over or made once, whoever is first.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ca_core::{
    Backoff, BundleError, BundleStore, IncompleteCa, RootParams, RotationPolicy, StoreError,
    random_unit,
};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::plugged_secret::{self, PluggedSecret};
use super::rotator::{Rotator, RotatorHandle};
use super::self_signed::{self, Origin, SelfSignedError};
use super::shared::Shared;
use super::upstream::{Meanwhile, Situation};
use crate::kubernetes::{
    CaSecret, CallError, Cluster, Followed, Leadership, SELF_SIGNED_MARK, SecretStore, Seen,
    follow_secret,
};

/// What to do about a CA in the cluster.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where a self-signed CA is kept that is new: in `cacerts` if true. One in `istio-ca-secret` is used in any case.
    pub(crate) in_cacerts: bool,
    pub(crate) params: RootParams,
    pub(crate) rotation: Option<RotationPolicy>,
    pub(crate) leadership: Leadership,
}

/// The CA, and what follows its Secret.
#[derive(Debug)]
pub(crate) struct ClusterCa {
    pub(crate) kind: Kind,
    pub(crate) bundles: BundleStore,
    watch: SecretWatch,
    pub(crate) followed: Followed,
}

/// How it changes.
#[derive(Debug)]
pub(crate) enum Kind {
    SelfSigned(Box<Rotator>, RotatorHandle),
    Plugged(Box<PluggedSecret>),
}

impl ClusterCa {
    /// As a report calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::SelfSigned(..) => "self-signed",
            Kind::Plugged(_) => "plugged-in",
        }
    }

    pub(crate) fn rotator(&self) -> Option<RotatorHandle> {
        match &self.kind {
            Kind::SelfSigned(_, handle) => Some(handle.clone()),
            Kind::Plugged(_) => None,
        }
    }

    /// Follows the Secret, and rotates the root where that is ours, for as long as the server runs.
    pub(crate) async fn run(self) {
        let SecretWatch(store, seen) = self.watch;
        let changed = async {
            match self.kind {
                Kind::SelfSigned(rotator, _) => rotator.run().await,
                Kind::Plugged(secret) => secret.keep_current(self.bundles).await,
            }
        };
        // Neither ends by itself.
        tokio::select! {
            () = changed => {}
            () = follow_secret(store, seen) => {}
        }
    }
}

/// Whether the CA in a folder was made by a server, and is to be kept by it: a mounted `cacerts` of our own.
pub(crate) fn is_own(folder: &Path) -> bool {
    folder.join(SELF_SIGNED_MARK).exists()
}

/// The one watch of the CA's Secret.
#[derive(Debug)]
struct SecretWatch(SecretStore, watch::Sender<Seen>);

/// Loads the CA, or makes one. Waits for an API server that is away, and has `meanwhile` say so.
///
/// # Errors
/// When what is there is not a CA.
pub(crate) async fn open(
    cluster: &Cluster,
    plan: Plan,
    meanwhile: Meanwhile<'_>,
) -> Result<ClusterCa, ClusterCaError> {
    let reason = match attempt(cluster, &plan).await {
        Ok(found) => return Ok(found.follow(plan)),
        Err(Attempt::Final(error)) => return Err(error),
        Err(Attempt::Passing(reason)) => reason,
    };
    let place = format!("Secret in the namespace {}", cluster.namespace);
    let situation = Situation::new(format!("this CA's {place}"), place);
    let trying = try_on(cluster, &plan, reason, &situation);
    // Whose it is shows in the Secret.
    let found = meanwhile.answer_until("not known yet", situation.clone(), trying);
    let found = found.await;
    Ok(found.map_err(ClusterCaError::Waiting)??.follow(plan))
}

/// Until there is a CA, or none can be had.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge: failures are told with their time"
)]
async fn try_on(
    cluster: &Cluster,
    plan: &Plan,
    mut reason: String,
    situation: &Situation,
) -> Result<Found, ClusterCaError> {
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        let wait = backoff.next(random_unit());
        tracing::warn!("no CA yet, to be tried again in {wait:.1?}: {reason}");
        situation.failed(OffsetDateTime::now_utc(), reason);
        tokio::time::sleep(wait).await;
        reason = match attempt(cluster, plan).await {
            Ok(found) => return Ok(found),
            Err(Attempt::Final(error)) => return Err(error),
            Err(Attempt::Passing(reason)) => reason,
        };
    }
}

/// What the first look has found.
enum Found {
    SelfSigned(SecretStore, ca_core::Stored, ca_core::KeyCertBundle),
    Plugged(SecretStore, ca_core::KeyCertBundle),
}

impl Found {
    fn follow(self, plan: Plan) -> ClusterCa {
        let (seen, changes) = watch::channel(Seen::Nothing);
        match self {
            Self::SelfSigned(store, stored, bundle) => {
                let followed = Followed::new(store.place());
                let bundles = BundleStore::new(bundle);
                let (rotator, handle) = Rotator::new(
                    Box::new(store.clone()),
                    stored,
                    bundles.clone(),
                    plan.params,
                    plan.rotation,
                );
                let shared = Shared::with(plan.leadership, changes, followed.clone());
                ClusterCa {
                    kind: Kind::SelfSigned(Box::new(rotator.sharing(shared)), handle),
                    bundles,
                    watch: SecretWatch(store, seen),
                    followed,
                }
            }
            Self::Plugged(store, bundle) => {
                let followed = Followed::new(store.place());
                let plugged = PluggedSecret::new(store.clone(), changes, followed.clone());
                ClusterCa {
                    kind: Kind::Plugged(Box::new(plugged)),
                    bundles: BundleStore::new(bundle),
                    watch: SecretWatch(store, seen),
                    followed,
                }
            }
        }
    }
}

/// As Istio, which has `cacerts` mounted, chooses: a CA that is plugged in wins; then `istio-ca-secret`; then one of our own in
/// `cacerts`, if that is where it is to be.
#[expect(clippy::disallowed_methods, reason = "an edge: it is judged as of now")]
async fn attempt(cluster: &Cluster, plan: &Plan) -> Result<Found, Attempt> {
    let now = OffsetDateTime::now_utc();
    let store = |secret| SecretStore::new(cluster.client.clone(), &cluster.namespace, secret);
    let (own, cacerts) = (store(CaSecret::SelfSigned), store(CaSecret::Cacerts));

    let plugged = cacerts.get().await?;
    let is_own = |secret: &k8s_openapi::api::core::v1::Secret| {
        let data = secret.data.as_ref();
        plan.in_cacerts && data.is_some_and(|data| data.contains_key(SELF_SIGNED_MARK))
    };
    if let Some(secret) = plugged.as_ref().filter(|secret| !is_own(secret)) {
        let unusable = |cause| {
            Attempt::Final(ClusterCaError::Plugged {
                place: cacerts.place(),
                cause,
            })
        };
        let parts = plugged_secret::parts(secret);
        if let Some(parts) = parts.map_err(|e: IncompleteCa| unusable(e.into()))? {
            let bundle = plugged_secret::first(&cacerts, &parts, now).map_err(unusable)?;
            tracing::info!(secret = %cacerts.place().display(), "the CA's key is plugged in");
            return Ok(Found::Plugged(cacerts, bundle));
        }
    }
    let store = match plan.in_cacerts && own.get().await?.is_none() {
        true => cacerts,
        false => own,
    };
    let (stored, origin) = self_signed::load_or_create(&store, &plan.params, now).await?;
    let said = match origin {
        Origin::Created => "new root created",
        Origin::Loaded => "root taken from the cluster",
    };
    tracing::info!(secret = %store.place().display(), "{said}");
    let bundle = stored.state.bundle(now);
    let bundle = bundle.map_err(|cause| {
        Attempt::Final(ClusterCaError::Bundle {
            place: store.place(),
            cause,
        })
    })?;
    Ok(Found::SelfSigned(store, stored, bundle))
}

/// Why there is no CA yet.
enum Attempt {
    /// Somebody is away, or was quicker.
    Passing(String),
    Final(ClusterCaError),
}

impl From<CallError> for Attempt {
    fn from(error: CallError) -> Self {
        Self::Passing(error.to_string())
    }
}

impl From<SelfSignedError> for Attempt {
    fn from(error: SelfSignedError) -> Self {
        match error {
            SelfSignedError::Store(StoreError::Conflict | StoreError::Unavailable(_)) => {
                Self::Passing(error.to_string())
            }
            error => Self::Final(error.into()),
        }
    }
}

/// Why what the cluster holds is not a CA. Nothing was overwritten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterCaError {
    /// What is plugged in does not read, or does not fit together.
    #[error("{}: {cause}", place.display())]
    Plugged {
        /// The Secret.
        place: PathBuf,
        /// What is wrong.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// It does not read.
    #[error(transparent)]
    SelfSigned(#[from] SelfSignedError),
    /// It reads, but nothing can be signed with it.
    #[error("{}: {cause}", place.display())]
    Bundle {
        /// The Secret.
        place: PathBuf,
        /// What is wrong.
        cause: BundleError,
    },
    /// Nothing can be answered while the API server is away.
    #[error("while waiting for the API server: {0}")]
    Waiting(std::io::Error),
}

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
