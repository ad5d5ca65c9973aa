//! The one task that changes a self-signed CA: by time, or on an operator's word.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ca_core::crypto::AWS_LC_RS;
use ca_core::{
    AuthorityState, AuthorityStore, BundleStore, KeyCertBundle, KeyKind, PublicKeyKind, RootParams,
    Rotation, RotationAction, RotationError, RotationPolicy, StoreError, Stored, random_unit,
};
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::shared::{Call, Outcome, Shared};
use crate::report::shown;

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

impl RotationStep {
    /// As an operator types it.
    fn verb(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Prepare => "prepare",
            Self::Activate => "activate",
            Self::Retire => "retire",
            Self::Abandon => "abandon",
            Self::Renew => "renew",
        }
    }
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
    /// With whom the state is shared.
    shared: Shared,
}

impl Rotator {
    /// `stored` is what the store holds and `bundles` signs with. Without a policy it acts on orders alone. Nobody else
    /// works on the store.
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
                shared: Shared::with_nobody(),
            },
            RotatorHandle {
                orders: sender,
                steps,
            },
        )
    }

    /// The same where others work on the store too: it acts by itself while it leads, on orders always, and follows them.
    pub(crate) fn sharing(self, shared: Shared) -> Self {
        Self { shared, ..self }
    }

    /// Works until the last handle is gone.
    pub(crate) async fn run(mut self) {
        let first_look = self
            .policy
            .map_or(NEVER, |policy| policy.first_check(random_unit()));
        // A moment and not a wait: orders and questions must not put it off.
        let mut next_look = Instant::now() + first_look;
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    // Whoever asked may have gone: the step is done all the same.
                    Some((step, reply)) => drop(reply.send(self.step(step).await)),
                    None => return,
                },
                call = self.shared.call() => {
                    let caught_up = self.catch_up().await;
                    self.shared.caught_up(&caught_up);
                    if call == Call::Lead {
                        next_look = Instant::now();
                    }
                }
                () = tokio::time::sleep_until(next_look), if self.shared.may_act() => {
                    let Some(policy) = self.policy else {
                        next_look = Instant::now() + NEVER;
                        continue;
                    };
                    next_look = self.look(policy).await;
                }
            }
        }
    }

    /// Does what is due, and says when to look again.
    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: it acts by the real clock"
    )]
    async fn look(&mut self, policy: RotationPolicy) -> Instant {
        let next = Instant::now() + policy.check_interval();
        let step = match policy.action(&self.stored.state, OffsetDateTime::now_utc()) {
            RotationAction::Renew => RotationStep::Renew,
            RotationAction::Prepare => RotationStep::Prepare,
            RotationAction::Activate => RotationStep::Activate,
            RotationAction::Retire => RotationStep::Retire,
            _ => return next,
        };
        let Err(error) = self.step(step).await else {
            return next;
        };
        tracing::error!(
            step = step.verb(),
            "root rotation failed, to be tried again: {error}"
        );
        if error.is_passing() {
            next.min(Instant::now() + SOON)
        } else {
            next
        }
    }

    async fn step(&mut self, step: RotationStep) -> Result<Report, StepError> {
        let result = self.take(step).await;
        // That is a question.
        if matches!(step, RotationStep::Status) {
            return result;
        }
        let outcome = if result.is_ok() { "done" } else { "failed" };
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        *steps.entry((step.verb(), outcome)).or_default() += 1;
        drop(steps);
        result
    }

    #[expect(clippy::disallowed_methods, reason = "an edge: a step is taken now")]
    async fn take(&mut self, step: RotationStep) -> Result<Report, StepError> {
        let (now, state) = (OffsetDateTime::now_utc(), &self.stored.state);
        let next = match step {
            RotationStep::Status => return Ok(self.report()),
            RotationStep::Prepare => state.prepare(&self.params, kind_of(state), &AWS_LC_RS, now),
            RotationStep::Activate => state.activate(now),
            RotationStep::Retire => state.retire(),
            RotationStep::Abandon => state.abandon(),
            RotationStep::Renew => state.renew(&self.params, now),
        };
        let next = next.map_err(|error| StepError::of(error, state.rotation()))?;
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
        tracing::info!(step = step.verb(), stage = report.stage, "root rotation");
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
        let stored = self.store.load().await?.ok_or(StepError::Missing)?;
        self.adopt(stored, now)?;
        Err(StepError::Store(StoreError::Conflict))
    }

    /// The store may hold something else than what is in use.
    #[expect(clippy::disallowed_methods, reason = "an edge: it is judged as of now")]
    async fn catch_up(&mut self) -> Result<Outcome, StepError> {
        let now = OffsetDateTime::now_utc();
        match self.store.load().await? {
            Some(stored) if stored.revision == self.stored.revision => Ok(Outcome::Unchanged),
            Some(stored) => self.adopt(stored, now),
            None => self.put_back().await,
        }
    }

    /// What the store has lost is still here, and a server that starts now would make another root.
    async fn put_back(&mut self) -> Result<Outcome, StepError> {
        if !self.shared.may_act() {
            return Err(StepError::Missing);
        }
        self.stored = self.store.save(self.stored.state.clone(), None).await?;
        tracing::warn!("the state of the CA was gone from its store, and has been put back");
        Ok(Outcome::Unchanged)
    }

    fn adopt(&mut self, stored: Stored, now: OffsetDateTime) -> Result<Outcome, StepError> {
        let bundle = usable(&stored.state, now).map_err(StepError::Unusable)?;
        let current = self.bundles.current();
        if current.chain() == bundle.chain() && current.roots() == bundle.roots() {
            // A label, or what others keep beside the state.
            self.stored = stored;
            return Ok(Outcome::Unchanged);
        }
        if current.roots().check_successor(bundle.roots()).is_err() {
            // Possible after we were cut off for long. To go on signing below roots that nobody else has would be worse.
            tracing::warn!("all roots have been exchanged: who trusts the ones before is cut off");
        }
        self.stored = stored;
        self.bundles.replace(bundle);
        let report = self.report();
        tracing::info!(
            stage = report.stage,
            "the state of the CA was changed elsewhere"
        );
        Ok(Outcome::Taken)
    }
}

/// The bundle of a state that somebody else has written.
fn usable(state: &AuthorityState, now: OffsetDateTime) -> Result<KeyCertBundle, String> {
    if !state.signing_certificate().is_self_issued() {
        return Err("it holds a CA that another one has certified".into());
    }
    state.bundle(now).map_err(|error| error.to_string())
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
        write!(f, "rotation  {}", self.stage)?;
        if let Some(since) = self.since {
            write!(f, " since {}", shown(since))?;
        }
        for (fingerprint, not_after, role) in &self.roots {
            write!(
                f,
                "\nroot      {role:8} until {}  SHA-256 {fingerprint}",
                shown(*not_after)
            )?;
        }
        Ok(())
    }
}

/// Why a step was not taken. The state is as it was, or as somebody else has made it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error("the rotation is {stage}: what can be done now is {steps}")]
    OutOfOrder {
        stage: &'static str,
        steps: &'static str,
    },
    #[error(transparent)]
    Rotation(RotationError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the next state cannot be used: {0}")]
    Unusable(String),
    #[error("the state is gone from the store; who leads puts it back")]
    Missing,
    #[error("the server is shutting down")]
    Gone,
}

impl StepError {
    /// Why a step does not lead on from `rotation`.
    fn of(error: RotationError, rotation: &Rotation) -> Self {
        let steps = match (&error, rotation) {
            (RotationError::Stage { .. }, Rotation::Steady) => "prepare or renew",
            (RotationError::Stage { .. }, Rotation::Prepared { .. }) => "activate or abandon",
            (RotationError::Stage { .. }, Rotation::Activated { .. }) => "retire",
            _ => return Self::Rotation(error),
        };
        let stage = rotation.name();
        Self::OutOfOrder { stage, steps }
    }

    /// Whether it may be over by itself, without anybody changing the state.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Store(error) => !matches!(error, StoreError::Corrupt { .. }),
            Self::Missing => true,
            _ => false,
        }
    }
}

/// After a store that was busy or away: an hour until the next look is too long for that.
const SOON: Duration = Duration::from_secs(30);
/// Longer than a process lives.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

#[cfg(test)]
mod tests {
    use ca_core::DirectoryStore;
    use ca_core::testing::now;

    use super::*;
    use crate::authority::self_signed;
    use crate::kubernetes::{Followed, Leadership, Seen, Standing};

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
        assert_eq!(
            error.to_string(),
            "the rotation is steady: what can be done now is prepare or renew"
        );
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

    #[tokio::test(start_paused = true)]
    async fn who_does_not_lead_rotates_on_orders_alone_and_who_comes_to_lead_looks_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (day, first) = (
            Duration::from_secs(24 * 3600),
            ca_core::FirstCheck::AfterInterval,
        );
        let policy = RotationPolicy::new(day, 100, first, ca_core::Method::Renew).unwrap();
        let (rotator, handle, bundles) = rotator(&folder, Some(policy)).await;
        let (standing, _) = tokio::sync::watch::channel(Standing::default());
        let (_changes, changes) = tokio::sync::watch::channel(Seen::Nothing);
        let shared = Shared::with(
            Leadership::given_by(&standing),
            changes,
            Followed::new("state".into()),
        );
        let task = tokio::spawn(rotator.sharing(shared).run());
        tokio::time::sleep(10 * day).await;
        assert_eq!(bundles.generation(), 1);
        handle.ask(RotationStep::Renew).await.unwrap();
        assert_eq!(bundles.generation(), 2);

        let mut changes = bundles.subscribe();
        standing.send_modify(|standing| standing.leads = true);
        let asked = Instant::now();
        changes.changed().await;
        assert_eq!(asked.elapsed(), Duration::ZERO);
        drop(handle);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn questions_do_not_put_off_what_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let (hour, first) = (
            Duration::from_secs(3600),
            ca_core::FirstCheck::AfterInterval,
        );
        let policy = RotationPolicy::new(hour, 100, first, ca_core::Method::Renew).unwrap();
        let (rotator, handle, bundles) = rotator(&folder, Some(policy)).await;
        let task = tokio::spawn(rotator.run());
        for _ in 0..7 {
            tokio::time::sleep(hour / 6).await;
            handle.ask(RotationStep::Status).await.unwrap();
        }
        assert_eq!(bundles.generation(), 2);
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
