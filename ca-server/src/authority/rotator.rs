//! The one task that changes a self-signed CA: by time, or on an operator's word.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ca_core::crypto::AWS_LC_RS;
use ca_core::{
    AuthorityState, AuthorityStore, BundleStore, KeyKind, PublicKeyKind, RootParams, Rotation,
    RotationAction, RotationError, RotationPolicy, StoreError, Stored, random_unit,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{mpsc, oneshot};

/// What an operator can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RotationStep {
    /// Tell where the rotation stands.
    Status,
    /// Make the next root and let it join the roots.
    Prepare,
    /// Let the next root sign.
    Activate,
    /// Let the old root leave the roots.
    Retire,
    /// Give the next root up, before it has signed anything.
    Abandon,
    /// Give the root a longer life with the same key.
    Renew,
}

/// The handle to the task. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RotatorHandle {
    orders: mpsc::Sender<Order>,
    steps: Steps,
}

/// How often each step was taken, and how often it failed.
type Steps = Arc<Mutex<BTreeMap<(&'static str, &'static str), u64>>>;

type Order = (RotationStep, oneshot::Sender<Result<Report, StepError>>);

impl RotatorHandle {
    /// Has a step done, and tells where the rotation stands then.
    pub(crate) async fn ask(&self, step: RotationStep) -> Result<Report, StepError> {
        let (reply, answer) = oneshot::channel();
        self.orders
            .send((step, reply))
            .await
            .map_err(|_| StepError::Gone)?;
        answer.await.map_err(|_| StepError::Gone)?
    }

    /// How often each step was taken (`done`) and how often it failed (`failed`), by anybody.
    pub(crate) fn steps(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.clone()
    }
}

/// Owns the store and the state in it.
#[derive(Debug)]
pub(crate) struct Rotator {
    store: Box<dyn AuthorityStore>,
    stored: Stored,
    bundles: BundleStore,
    params: RootParams,
    policy: Option<RotationPolicy>,
    orders: mpsc::Receiver<Order>,
    /// Held for one count.
    steps: Steps,
}

impl Rotator {
    /// `stored` is what the store holds and `bundles` signs with. Without a policy it acts on orders alone.
    pub(crate) fn new(
        store: Box<dyn AuthorityStore>,
        stored: Stored,
        bundles: BundleStore,
        params: RootParams,
        policy: Option<RotationPolicy>,
    ) -> (Self, RotatorHandle) {
        let (sender, orders) = mpsc::channel(4);
        let steps = Steps::default();
        (
            Self {
                store,
                stored,
                bundles,
                params,
                policy,
                orders,
                steps: Arc::clone(&steps),
            },
            RotatorHandle {
                orders: sender,
                steps,
            },
        )
    }

    /// Works until the last handle is gone.
    pub(crate) async fn run(mut self) {
        let mut next_look = self
            .policy
            .map_or(NEVER, |policy| policy.first_check(random_unit()));
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    // Whoever asked may have gone: the step is done all the same.
                    Some((step, reply)) => drop(reply.send(self.step(step).await)),
                    None => return,
                },
                () = tokio::time::sleep(next_look) => {
                    let Some(policy) = self.policy else { continue };
                    next_look = policy.check_interval();
                    self.look(policy).await;
                }
            }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: it acts by the real clock"
    )]
    async fn look(&mut self, policy: RotationPolicy) {
        let step = match policy.action(&self.stored.state, OffsetDateTime::now_utc()) {
            RotationAction::Renew => RotationStep::Renew,
            RotationAction::Prepare => RotationStep::Prepare,
            RotationAction::Activate => RotationStep::Activate,
            RotationAction::Retire => RotationStep::Retire,
            _ => return,
        };
        if let Err(error) = self.step(step).await {
            tracing::error!(?step, "root rotation failed, to be tried again: {error}");
        }
    }

    async fn step(&mut self, step: RotationStep) -> Result<Report, StepError> {
        let result = self.take(step).await;
        let step = match step {
            // That is a question.
            RotationStep::Status => return result,
            RotationStep::Prepare => "prepare",
            RotationStep::Activate => "activate",
            RotationStep::Retire => "retire",
            RotationStep::Abandon => "abandon",
            RotationStep::Renew => "renew",
        };
        let outcome = if result.is_ok() { "done" } else { "failed" };
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        *steps.entry((step, outcome)).or_default() += 1;
        drop(steps);
        result
    }

    #[expect(clippy::disallowed_methods, reason = "an edge: a step is taken now")]
    async fn take(&mut self, step: RotationStep) -> Result<Report, StepError> {
        let (now, state) = (OffsetDateTime::now_utc(), &self.stored.state);
        let next = match step {
            RotationStep::Status => return Ok(self.report()),
            RotationStep::Prepare => {
                state.prepare(&self.params, kind_of(state), &AWS_LC_RS, now)?
            }
            RotationStep::Activate => state.activate(now)?,
            RotationStep::Retire => state.retire()?,
            RotationStep::Abandon => state.abandon()?,
            RotationStep::Renew => state.renew(&self.params, now)?,
        };
        // Verified before it is kept, kept before it is used: a crash leaves a state that works.
        let bundle = next
            .bundle(now)
            .map_err(|e| StepError::Unusable(e.to_string()))?;
        match self
            .store
            .save(next, Some(self.stored.revision.clone()))
            .await
        {
            Ok(stored) => self.stored = stored,
            Err(StoreError::Conflict) => return self.follow_the_store(now).await,
            Err(error) => return Err(error.into()),
        }
        self.bundles
            .succeed(bundle)
            .map_err(|e| StepError::Unusable(e.to_string()))?;
        let report = self.report();
        tracing::info!(?step, stage = report.stage, "root rotation");
        Ok(report)
    }

    fn report(&self) -> Report {
        let state = &self.stored.state;
        Report {
            next: self.policy.and_then(|policy| policy.next(state)),
            ..Report::of(state)
        }
    }

    /// Somebody else was quicker: what it has done is the state of this CA.
    async fn follow_the_store(&mut self, now: OffsetDateTime) -> Result<Report, StepError> {
        let stored = self.store.load().await?.ok_or(StoreError::Conflict)?;
        let bundle = stored
            .state
            .bundle(now)
            .map_err(|e| StepError::Unusable(e.to_string()))?;
        self.stored = stored;
        self.bundles.replace(bundle);
        Err(StepError::Store(StoreError::Conflict))
    }
}

/// The next root gets a key of the kind that the present one has.
fn kind_of(state: &AuthorityState) -> KeyKind {
    match state.signing_certificate().public_key().kind() {
        PublicKeyKind::EcdsaP384 => KeyKind::EcdsaP384,
        PublicKeyKind::Ed25519 => KeyKind::Ed25519,
        PublicKeyKind::Rsa { bits: ..3072 } => KeyKind::Rsa2048,
        PublicKeyKind::Rsa { bits: 3072..4096 } => KeyKind::Rsa3072,
        PublicKeyKind::Rsa { .. } => KeyKind::Rsa4096,
        _ => KeyKind::EcdsaP256,
    }
}

/// Where a rotation stands, for a person.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) stage: &'static str,
    pub(crate) since: Option<OffsetDateTime>,
    /// What comes next without an operator, and from when on.
    pub(crate) next: Option<(RotationAction, OffsetDateTime)>,
    /// Fingerprint, end and role.
    pub(crate) roots: Vec<(String, OffsetDateTime, &'static str)>,
}

impl Report {
    fn of(state: &AuthorityState) -> Self {
        let role = |root: &ca_core::Certificate| match state.rotation() {
            _ if root == state.signing_certificate() => "signs",
            Rotation::Prepared { next, .. } if *root == next.root => "next",
            Rotation::Activated { retiring, .. } if root.public_key() == retiring.public_key() => {
                "retiring"
            }
            _ => "trusted",
        };
        let since = match state.rotation() {
            Rotation::Prepared { since, .. } | Rotation::Activated { since, .. } => Some(*since),
            _ => None,
        };
        let roots = state.roots().certificates().iter();
        Self {
            stage: state.rotation().name(),
            since,
            next: None,
            roots: roots
                .map(|root| (root.fingerprint(), root.not_after(), role(root)))
                .collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |time: &OffsetDateTime| time.format(&Rfc3339).map_err(|_| fmt::Error);
        write!(f, "rotation  {}", self.stage)?;
        if let Some(since) = &self.since {
            write!(f, " since {}", shown(since)?)?;
        }
        for (fingerprint, not_after, role) in &self.roots {
            write!(
                f,
                "\nroot      {role:8} until {}  SHA-256 {fingerprint}",
                shown(not_after)?
            )?;
        }
        Ok(())
    }
}

/// Why a step was not taken. The state is as it was, or as somebody else has made it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Rotation(#[from] RotationError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the next state cannot be used: {0}")]
    Unusable(String),
    #[error("the server is shutting down")]
    Gone,
}

/// Longer than a process lives.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

#[cfg(test)]
mod tests {
    use ca_core::DirectoryStore;
    use ca_core::testing::now;

    use super::*;
    use crate::authority::self_signed;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    async fn rotator(
        folder: &tempfile::TempDir,
        policy: Option<RotationPolicy>,
    ) -> (Rotator, RotatorHandle, BundleStore) {
        let params = RootParams::new("cluster.local", YEAR);
        let store = DirectoryStore::open_with(folder.path(), &AWS_LC_RS).unwrap();
        let (stored, _) = self_signed::load_or_create(&store, &params, now())
            .await
            .unwrap();
        let bundles = BundleStore::new(stored.state.bundle(now()).unwrap());
        let (rotator, handle) =
            Rotator::new(Box::new(store), stored, bundles.clone(), params, policy);
        (rotator, handle, bundles)
    }

    #[tokio::test]
    async fn an_operator_replaces_the_root_in_three_steps_each_of_which_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = None;
        for (step, stage, roots) in [
            (RotationStep::Status, "steady", 1),
            (RotationStep::Prepare, "prepared", 2),
            (RotationStep::Status, "prepared", 2),
            (RotationStep::Activate, "activated", 2),
            (RotationStep::Retire, "steady", 1),
        ] {
            let (rotator, handle, bundles) = rotator(&folder, None).await;
            first.get_or_insert(bundles.current().roots().certificates()[0].fingerprint());
            let task = tokio::spawn(rotator.run());
            let report = handle.ask(step).await.unwrap();
            assert_eq!(
                (report.stage, report.roots.len()),
                (stage, roots),
                "{step:?}"
            );
            assert_eq!(bundles.current().roots().certificates().len(), roots);
            assert_eq!(report.roots[0].2, "signs");
            drop(handle);
            task.await.unwrap();
        }
        let (_, _, bundles) = rotator(&folder, None).await;
        assert_ne!(
            bundles.current().roots().certificates()[0].fingerprint(),
            first.unwrap()
        );
    }

    #[tokio::test]
    async fn a_step_out_of_order_is_told_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (rotator, handle, bundles) = rotator(&folder, None).await;
        let task = tokio::spawn(rotator.run());
        let error = handle.ask(RotationStep::Activate).await.unwrap_err();
        assert_eq!(error.to_string(), "the rotation is steady, not prepared");
        assert_eq!(bundles.generation(), 1);
        drop(handle);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_root_that_is_due_is_renewed_by_itself_and_the_next_look_finds_nothing_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let method = ca_core::Method::Renew;
        let hour = Duration::from_secs(3600);
        // At 100 percent every root is due from its second second on.
        let policy = RotationPolicy::new(hour, 100, ca_core::FirstCheck::Spread, method).unwrap();
        let (rotator, handle, bundles) = rotator(&folder, Some(policy)).await;
        let key = bundles.current().signing_certificate().public_key().clone();
        let mut changes = bundles.subscribe();
        let task = tokio::spawn(rotator.run());
        let renewed = changes.changed().await;
        assert_eq!(*renewed.signing_certificate().public_key(), key);
        assert_eq!(renewed.roots().certificates().len(), 2);
        drop(handle);
        task.await.unwrap();
    }

    #[test]
    fn a_report_reads_like_a_sentence() {
        let ca = ca_core::testing::TestCa::new("cluster.local");
        let report = Report::of(&ca.state()).to_string();
        assert!(
            report.starts_with("rotation  steady\nroot      signs    until 20"),
            "{report}"
        );
    }
}
