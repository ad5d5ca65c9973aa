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

    /// Whether nothing that we say in a request differs.
    fn asks_the_same_as(&self, other: &Self) -> bool;
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
        loop {
            tokio::select! {
                verdict = expected.verdict() => return Ok(verdict),
                () = tokio::time::sleep(RECHECK) => {}
            }
            // A connection that has died silently tells nothing more, and is not known to be dead for minutes.
            match self.get(&created).await {
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
                    return match call(self.api.get(&name)).await {
                        Ok(made) if made.asks_the_same_as(&object) => Ok(made),
                        Ok(_) => Err(KubernetesSignerError::api(doing, kube::Error::Api(status))),
                        Err(cause) => Err(KubernetesSignerError::api(doing, cause)),
                    };
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
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut tries = 1;
        while !object.is_decided() {
            object.approve(now(), APPROVED_BY, "the registration authority has decided");
            let params = PostParams::default();
            let written = self
                .api
                .replace_subresource(K::APPROVED_AT, &name, &params, &object);
            let Err(cause) = call(written).await else {
                return Ok(());
            };
            if matches!(&cause, kube::Error::Api(status) if status.is_not_found()) {
                // Whoever waits is told so.
                return Ok(());
            }
            let is_conflict = matches!(&cause, kube::Error::Api(status) if status.is_conflict());
            if tries == MOST_TRIES || !is_conflict && !is_passing(&cause) {
                return Err(KubernetesSignerError::api(
                    format!("approve certificate request {name}"),
                    cause,
                ));
            }
            if !is_conflict {
                tokio::time::sleep(backoff.next(random_unit())).await;
            }
            tries += 1;
            object = match self.get(created).await {
                Ok(Some(newer)) => newer,
                Ok(None) => return Ok(()),
                // Of the version that we know.
                Err(error) => {
                    tracing::debug!("{error}");
                    created.clone()
                }
            };
        }
        Ok(())
    }

    /// The object as it is now. **What has its name and is another one is not what we have made**, and might ask for anything.
    async fn get(&self, created: &K) -> Result<Option<K>, KubernetesSignerError> {
        let name = created.name_any();
        let found = call(self.api.get_opt(&name)).await.map_err(|cause| {
            KubernetesSignerError::api(format!("read certificate request {name}"), cause)
        })?;
        Ok(found.filter(|found| found.uid() == created.uid()))
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http::Method;
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::super::certificate_request::{CertificateRequest, CertificateRequestSpec};
    use super::*;

    type Asked = Arc<Mutex<Vec<String>>>;

    /// An API server that creates what it is asked for, and then answers as `script` says.
    fn requests(
        script: impl Fn(&Method, usize) -> (u16, Value) + Clone + Send + Sync + 'static,
    ) -> (Requests<CertificateRequest>, Asked) {
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (method, seen) = (request.method().clone(), Arc::clone(&seen));
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.push(format!(
                    "{method} {}",
                    request.uri().path().rsplit('/').next().unwrap()
                ));
                seen.iter()
                    .filter(|each| each.starts_with(method.as_str()))
                    .count()
            };
            let (code, body) = script(&method, number);
            async move {
                let answer = http::Response::builder().status(code);
                Ok::<_, Infallible>(
                    answer
                        .body(Body::from(body.to_string().into_bytes()))
                        .unwrap(),
                )
            }
        });
        let manner = Manner {
            prefix: "istio-csr-",
            approval: Approval::Ours,
            afterwards: Afterwards::Keep,
            deadline: Duration::from_secs(60),
        };
        let api = Api::namespaced(Client::new(service, "mesh"), "mesh");
        (Requests::new(api, manner).0, asked)
    }

    fn object(uid: &str, request: &str, version: &str) -> Value {
        json!({
            "apiVersion": "cert-manager.io/v1",
            "kind": "CertificateRequest",
            "metadata": { "name": "a", "uid": uid, "resourceVersion": version },
            "spec": { "request": request, "isCA": false, "issuerRef": { "name": "ca" } },
        })
    }

    fn failure(code: u16, reason: &str) -> (u16, Value) {
        let status = json!({
            "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "said",
        });
        (code, status)
    }

    async fn ask(requests: &Requests<CertificateRequest>) -> Result<Answer, KubernetesSignerError> {
        let made: CertificateRequest = serde_json::from_value(object("", "QQ==", "")).unwrap();
        let asked = requests.ask(BTreeMap::new(), |metadata| {
            CertificateRequest::new(metadata, CertificateRequestSpec { ..made.spec })
        });
        asked.await
    }

    fn count(asked: &Asked, what: &str) -> usize {
        let asked = asked.lock().unwrap();
        asked.iter().filter(|each| each.starts_with(what)).count()
    }

    /// Whoever may delete and create requests, but not approve them, must not have ours to approve theirs.
    #[tokio::test(start_paused = true)]
    async fn what_has_taken_the_place_of_our_request_is_not_approved() {
        let (requests, asked) = requests(|method, _| match *method {
            Method::POST => (201, object("ours", "QQ==", "1")),
            Method::PUT => failure(409, "Conflict"),
            _ => (200, object("theirs", "Qg==", "2")),
        });
        let error = ask(&requests).await.unwrap_err();
        assert!(
            error.to_string().ends_with("was deleted by somebody"),
            "{error}"
        );
        assert_eq!(count(&asked, "PUT"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_under_our_name_and_asks_for_something_else_is_not_approved() {
        let (requests, asked) = requests(|method, number| match (method, number) {
            (&Method::POST, 1) => failure(500, "InternalError"),
            (&Method::POST, _) => failure(409, "AlreadyExists"),
            _ => (200, object("theirs", "Qg==", "2")),
        });
        let error = ask(&requests).await.unwrap_err();
        assert!(error.to_string().ends_with("said (409)"), "{error}");
        assert_eq!(count(&asked, "PUT"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_approval_that_cannot_be_written_is_tried_again_and_then_told() {
        let (requests, asked) = requests(|method, _| match *method {
            Method::POST => (201, object("ours", "QQ==", "1")),
            _ => failure(503, "ServiceUnavailable"),
        });
        let began = Instant::now();
        let error = ask(&requests).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(error.to_string().starts_with("cannot approve"), "{error}");
        assert_eq!(count(&asked, "PUT"), MOST_TRIES as usize);
        assert!(
            began.elapsed() < Duration::from_secs(6),
            "{:?}",
            began.elapsed()
        );
    }
}
