//! From the object to its outcome: what both kinds of request have in common.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use ca_core::{Backoff, random_unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::answer::Answer;
use super::cleanup::{self, Cleanup};
use super::error::{KubernetesSignerError, is_passing};
use super::outcome::{Expected, Outcomes, Refusal, Verdict};
use super::watching;

/// Who says that a request may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// We, as soon as it exists: it has been decided before. Needs the right to `approve` for the signer.
    Ours,
    /// An approver beside us.
    Others,
}

/// What becomes of a request that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It is deleted, however it ended.
    Delete,
    /// It stays, for people who look into it. **Somebody else must tidy up.**
    Keep,
}

/// An object that asks for a certificate.
pub(super) trait Request:
    Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The part of it where approval is written.
    const APPROVED_AT: &'static str;

    /// How it has ended. `None` while it is open.
    fn verdict(&self) -> Option<Verdict>;

    /// Whether somebody has approved or denied it.
    fn is_decided(&self) -> bool;

    fn approve(&mut self, at: Time, reason: &str, message: &str);
}

/// How requests of one kind are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// What their names begin with.
    pub(super) prefix: &'static str,
    pub(super) approval: Approval,
    pub(super) afterwards: Afterwards,
    /// For each, from creation to certificate.
    pub(super) deadline: Duration,
}

/// All requests of this process of one kind. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Requests<K> {
    api: Api<K>,
    manner: Manner,
    /// Which of all the requests are of this process.
    instance: String,
    outcomes: Outcomes,
    cleanup: Option<Cleanup>,
}

impl<K: Request> Requests<K> {
    /// The second is what must go on meanwhile.
    pub(super) fn new(
        api: Api<K>,
        manner: Manner,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (cleanup, names) = Cleanup::new();
        let requests = Self {
            api,
            manner,
            instance: random_suffix(),
            outcomes: Outcomes::default(),
            cleanup: (manner.afterwards == Afterwards::Delete).then_some(cleanup),
        };
        let all = requests.clone();
        let upkeep = async move {
            let (watch, api) = (all.watch(), &all.api);
            match all.manner.afterwards {
                Afterwards::Keep => watch.await,
                Afterwards::Delete => {
                    // Twice as long as anybody waits: those of a replica that is still there are never found.
                    let age = 2 * all.manner.deadline;
                    let deletions = cleanup::delete_all(api, names);
                    let sweeps = cleanup::sweep_for_ever(api, OURS, age, &all.outcomes);
                    tokio::join!(watch, deletions, sweeps);
                }
            }
        };
        (requests, upkeep)
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.outcomes.count()
    }

    /// One watch for all of them.
    async fn watch(&self) {
        let selector = format!("{OURS},{INSTANCE_LABEL}={}", self.instance);
        let config = watcher::Config::default().labels(&selector);
        let kind = K::plural(&());
        watching::for_ever(&kind, self.api.clone(), config, |event| {
            self.outcomes.see(event);
        })
        .await;
    }

    /// Has `make` complete an object, creates it, and waits for what becomes of it. **Dropping the future gives up**: then too the
    /// object is deleted.
    pub(super) async fn ask(
        &self,
        annotations: BTreeMap<String, String>,
        make: impl FnOnce(ObjectMeta) -> K,
    ) -> Result<Answer, KubernetesSignerError> {
        let end = Instant::now() + self.manner.deadline;
        // Named by us, in the form in which the API server would: whoever knows the name beforehand misses no event of it,
        // can ask again when an answer was lost, and can delete what was made by a call that seemed to fail.
        let name = format!("{}{}", self.manner.prefix, random_suffix());
        let object = make(ObjectMeta {
            name: Some(name.clone()),
            annotations: (!annotations.is_empty()).then_some(annotations),
            labels: Some(BTreeMap::from([
                (MANAGED_LABEL.into(), MANAGED_BY.into()),
                (COMPONENT_LABEL.into(), COMPONENT.into()),
                (INSTANCE_LABEL.into(), self.instance.clone()),
            ])),
            ..ObjectMeta::default()
        });
        let mut expected = self.outcomes.expect(&name);
        let left = Left {
            name: &name,
            cleanup: self.cleanup.as_ref(),
        };
        let asked = tokio::time::timeout_at(end, self.create_and_wait(object, &mut expected));
        let verdict = asked.await.unwrap_or_else(|_| {
            Err(KubernetesSignerError::Late {
                name: name.clone(),
                limit: self.manner.deadline,
            })
        })?;
        verdict.map_err(|refusal| {
            if refusal == Refusal::Deleted {
                left.forget();
            }
            KubernetesSignerError::Refused {
                name: name.clone(),
                refusal,
            }
        })
    }

    async fn create_and_wait(
        &self,
        object: K,
        expected: &mut Expected,
    ) -> Result<Verdict, KubernetesSignerError> {
        let created = self.create(object).await?;
        expected.is_created();
        if self.manner.approval == Approval::Ours {
            self.approve(&created).await?;
        }
        let name = created.name_any();
        loop {
            tokio::select! {
                verdict = expected.verdict() => return Ok(verdict),
                () = tokio::time::sleep(RECHECK) => {}
            }
            // A connection that has died silently tells nothing more, and is not known to be dead for minutes.
            match self.get(&name).await {
                Ok(Some(object)) => {
                    if let Some(verdict) = object.verdict() {
                        return Ok(verdict);
                    }
                }
                Ok(None) => return Ok(Err(Refusal::Deleted)),
                Err(error) => tracing::debug!("{error}"),
            }
        }
    }

    async fn create(&self, object: K) -> Result<K, KubernetesSignerError> {
        let name = object.name_any();
        let doing = format!("create certificate request {name}");
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut tries = 1;
        loop {
            let params = PostParams::default();
            let error = match call(self.api.create(&params, &object)).await {
                Ok(created) => return Ok(created),
                // Made by an attempt whose answer was lost.
                Err(kube::Error::Api(status)) if status.is_already_exists() && tries > 1 => {
                    let made = call(self.api.get(&name)).await;
                    return made.map_err(|cause| KubernetesSignerError::api(doing, cause));
                }
                Err(error) => error,
            };
            if !is_passing(&error) || tries == MOST_TRIES {
                return Err(KubernetesSignerError::api(doing, error));
            }
            tokio::time::sleep(backoff.next(random_unit())).await;
            tries += 1;
        }
    }

    /// Says of the object that it may be signed, unless somebody has decided about it first.
    async fn approve(&self, created: &K) -> Result<(), KubernetesSignerError> {
        let name = created.name_any();
        let mut object = created.clone();
        for _ in 0..MOST_TRIES {
            if object.is_decided() {
                return Ok(());
            }
            object.approve(now(), APPROVED_BY, "the registration authority has decided");
            let params = PostParams::default();
            let written = self
                .api
                .replace_subresource(K::APPROVED_AT, &name, &params, &object);
            let Err(cause) = call(written).await else {
                return Ok(());
            };
            let is_conflict = matches!(&cause, kube::Error::Api(status) if status.is_conflict());
            if !is_conflict && !is_passing(&cause) {
                return Err(KubernetesSignerError::api(
                    format!("approve certificate request {name}"),
                    cause,
                ));
            }
            // Another version of it; or, once it is gone, whoever waits is told so.
            match self.get(&name).await? {
                Some(newer) => object = newer,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Option<K>, KubernetesSignerError> {
        call(self.api.get_opt(name)).await.map_err(|cause| {
            KubernetesSignerError::api(format!("read certificate request {name}"), cause)
        })
    }
}

/// A call that has a deadline of its own: the client has none.
async fn call<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap_or_else(|_| Err(kube::Error::Service("no answer in time".into())))
}

/// An object that is to be deleted when nobody waits for it any more.
struct Left<'a> {
    name: &'a str,
    cleanup: Option<&'a Cleanup>,
}

impl Left<'_> {
    /// It need not be deleted.
    fn forget(mut self) {
        self.cleanup = None;
    }
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if let Some(cleanup) = self.cleanup {
            cleanup.delete(self.name.to_owned());
        }
    }
}

/// Ten letters and digits of those that Kubernetes takes for this: no vowels, and nothing that looks like something else.
fn random_suffix() -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let letter = |_| {
        // In 0.0..1.0, so below the count.
        let at = (random_unit() * LETTERS.len() as f64) as usize;
        char::from(LETTERS[at.min(LETTERS.len() - 1)])
    };
    (0..10).map(letter).collect()
}

#[expect(clippy::disallowed_methods, reason = "an edge: it is approved now")]
fn now() -> Time {
    let seconds = OffsetDateTime::now_utc().unix_timestamp();
    Time(Timestamp::from_second(seconds).unwrap_or_default())
}

const MANAGED_LABEL: &str = "app.kubernetes.io/managed-by";
const MANAGED_BY: &str = "mesh-ca";
const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
const COMPONENT: &str = "registration-authority";
const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Those of all replicas.
const OURS: &str =
    "app.kubernetes.io/managed-by=mesh-ca,app.kubernetes.io/component=registration-authority";
const APPROVED_BY: &str = "RegistrationAuthority";

const PATIENCE: Duration = Duration::from_secs(10);
const RECHECK: Duration = Duration::from_secs(5);
const MOST_TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
