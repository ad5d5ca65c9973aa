//! **A stand-in**: it plays the signer of the certificate API of Kubernetes, or cert-manager's approver and issuer. It does what they
//! do with the objects, by the same API and in the same order, and what they never should. It is neither of them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ca_core::testing::{TestCa, now};
use ca_core::{Csr, SubjectName};
use ca_ra::CertificateRequest;
use der::{AnyRef, Decode as _, Reader as _, SliceReader, Tag, TagNumber, Tagged as _};
use futures_util::StreamExt as _;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::deadline::eventually;

/// Signs until it is dropped. How it treats a request is what the service account in it is called: see [`conduct`].
pub(crate) struct StandIn {
    ca: TestCa,
    seen: Arc<Mutex<Vec<Seen>>>,
    _work: JoinSet<()>,
}

/// A request that came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) object: Value,
    took: Option<Duration>,
}

impl StandIn {
    /// Approves and signs what cert-manager would, for all issuers of one namespace whose name is this.
    pub(crate) fn cert_manager(client: Client, namespace: &str, issuer: &str) -> Self {
        let ca = TestCa::new("signer");
        let api: Api<CertificateRequest> = Api::namespaced(client, namespace);
        let issuer = issuer.to_owned();
        Self::start(ca, async move |ca, seen| {
            let events = watcher(api.clone(), watcher::Config::default());
            let events = events.default_backoff().touched_objects();
            let (api, issuer) = (&api, &issuer);
            let done = events.for_each_concurrent(64, async |event| {
                // Errors are for the back-off.
                let Ok(object) = event else { return };
                if object.spec.issuer_ref.name == *issuer && object.status.is_none() {
                    certificate_request(api, &ca, &seen, &object).await;
                }
            });
            done.await;
        })
    }

    /// Signs what is approved for this signer.
    pub(crate) fn kubernetes(client: Client, signer: &str) -> Self {
        let ca = TestCa::new("signer");
        let api: Api<CertificateSigningRequest> = Api::all(client);
        let only = format!("spec.signerName={signer}");
        Self::start(ca, async move |ca, seen| {
            let events = watcher(api.clone(), watcher::Config::default().fields(&only));
            let events = events.default_backoff().touched_objects();
            let api = &api;
            let done = events.for_each_concurrent(64, async |event| {
                let Ok(object) = event else { return };
                signing_request(api, &ca, &seen, &object).await;
            });
            done.await;
        })
    }

    fn start<Work>(ca: TestCa, work: impl FnOnce(TestCa, Arc<Mutex<Vec<Seen>>>) -> Work) -> Self
    where
        Work: Future<Output = ()> + Send + 'static,
    {
        let seen = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(work(ca.clone(), Arc::clone(&seen)));
        Self {
            ca,
            seen,
            _work: tasks,
        }
    }

    pub(crate) fn ca(&self) -> &TestCa {
        &self.ca
    }

    /// All requests so far, in the order in which they came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What it took for one of them by itself, from when it was seen until its certificate was written.
    pub(crate) async fn own_time(&self, number: usize) -> Duration {
        let attempt = async || {
            let took = self.seen().get(number).and_then(|seen| seen.took);
            took.ok_or_else(|| format!("request {number} is not signed"))
        };
        eventually("signature", attempt).await
    }

    /// Waits until that many have come.
    pub(crate) async fn until_seen(&self, count: usize) -> Vec<Seen> {
        let attempt = async || {
            let seen = self.seen();
            let got = seen.len();
            if got >= count {
                Ok(seen)
            } else {
                Err(format!("{got}"))
            }
        };
        eventually("requests", attempt).await
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conduct {
    Sign,
    Deny,
    Fail,
    Invalid,
    Delete,
    Ignore,
    OtherKey,
    OtherName,
    MoreNames,
    TooLong,
    Junk,
}

/// By the end of the service account's name; whoever is called otherwise is signed for.
fn conduct(names: &[SubjectName]) -> Conduct {
    let name = names.first().map(ToString::to_string).unwrap_or_default();
    let conducts = [
        ("denied", Conduct::Deny),
        ("failed", Conduct::Fail),
        ("invalid", Conduct::Invalid),
        ("deleted", Conduct::Delete),
        ("ignored", Conduct::Ignore),
        ("other-key", Conduct::OtherKey),
        ("other-name", Conduct::OtherName),
        ("more-names", Conduct::MoreNames),
        ("too-long", Conduct::TooLong),
        ("junk", Conduct::Junk),
    ];
    let found = conducts.iter().find(|(end, _)| name.ends_with(end));
    found.map_or(Conduct::Sign, |(_, conduct)| *conduct)
}

/// What cert-manager's approver and then its issuer do: two writes.
async fn certificate_request(
    api: &Api<CertificateRequest>,
    ca: &TestCa,
    seen: &Mutex<Vec<Seen>>,
    object: &CertificateRequest,
) {
    let began = Instant::now();
    let at = note(seen, object);
    let csr = Csr::from_pem(&object.spec.request.0).unwrap();
    let conduct = conduct(&asked_names(&csr));
    let name = object.name_any();
    let approved = condition("Approved", "True", "cert-manager.io");
    let one = async |condition: Value| {
        write(api, &name, json!({ "conditions": [condition] })).await;
    };
    match conduct {
        Conduct::Ignore => return,
        Conduct::Delete => {
            // Whoever waits may have deleted it.
            let _ = api.delete(&name, &DeleteParams::default()).await;
            return;
        }
        Conduct::Deny => return one(condition("Denied", "True", "policy")).await,
        Conduct::Invalid => return one(condition("InvalidRequest", "True", "bad")).await,
        Conduct::Fail => return one(condition("Ready", "False", "Failed")).await,
        _ => one(approved.clone()).await,
    }
    let asked = object.spec.duration.as_deref().unwrap();
    let lifetime = ca_core::parse_duration(asked).unwrap();
    let certificate = sign(ca, &csr, conduct, lifetime);
    let status = json!({
        "conditions": [approved, condition("Ready", "True", "Issued")],
        "certificate": base64(&certificate),
        "ca": base64(ca.root_pem().as_bytes()),
    });
    write(api, &name, status).await;
    seen.lock().unwrap()[at].took = Some(began.elapsed());
}

/// What a signer of the certificate API does: nothing until somebody has approved.
async fn signing_request(
    api: &Api<CertificateSigningRequest>,
    ca: &TestCa,
    seen: &Mutex<Vec<Seen>>,
    object: &CertificateSigningRequest,
) {
    let began = Instant::now();
    let status = object.status.clone().unwrap_or_default();
    let is = |kind: &str| {
        let mut all = status.conditions.iter().flatten();
        all.any(|condition| condition.type_ == kind)
    };
    let csr = Csr::from_pem(&object.spec.request.0).unwrap();
    let conduct = conduct(&asked_names(&csr));
    let name = object.name_any();
    let is_over = is("Denied") || is("Failed") || status.certificate.is_some();
    // Who may only be denied is not waited for.
    if is_over || (!is("Approved") && conduct != Conduct::Deny) {
        return;
    }
    let at = note(seen, object);
    match conduct {
        Conduct::Ignore => return,
        Conduct::Delete => {
            let _ = api.delete(&name, &DeleteParams::default()).await;
            return;
        }
        Conduct::Deny => {
            // By now somebody may have approved it, and then it is too late.
            let denied =
                json!({ "status": { "conditions": [condition("Denied", "True", "policy")] } });
            let patch = Patch::Merge(&denied);
            let _ = api
                .patch_approval(&name, &PatchParams::default(), &patch)
                .await;
            return;
        }
        Conduct::Fail | Conduct::Invalid => {
            let conditions = status.conditions.iter().flatten();
            let mut all: Vec<_> = conditions.map(|each| json!(each)).collect();
            all.push(condition("Failed", "True", "SigningError"));
            return write(api, &name, json!({ "conditions": all })).await;
        }
        _ => {}
    }
    let seconds = object.spec.expiration_seconds.unwrap();
    let lifetime = Duration::from_secs(seconds.try_into().unwrap());
    let mut certificate = sign(ca, &csr, conduct, lifetime);
    if conduct != Conduct::Junk {
        // Where the API has no place for a root, some signers put it into the chain.
        certificate.extend(ca.root_pem().into_bytes());
    }
    write(api, &name, json!({ "certificate": base64(&certificate) })).await;
    seen.lock().unwrap()[at].took = Some(began.elapsed());
}

fn note(seen: &Mutex<Vec<Seen>>, object: &impl serde::Serialize) -> usize {
    let mut seen = seen.lock().unwrap();
    seen.push(Seen {
        object: serde_json::to_value(object).unwrap(),
        took: None,
    });
    seen.len() - 1
}

fn sign(ca: &TestCa, csr: &Csr, conduct: Conduct, lifetime: Duration) -> Vec<u8> {
    let names = asked_names(csr);
    let other = || vec![ca.id("shop", "somebody-else").into()];
    let issue = |names: &[SubjectName], lifetime| {
        let issued = ca.issue(csr, names, lifetime, now());
        issued.chain().to_pem().into_bytes()
    };
    match conduct {
        Conduct::OtherKey => {
            let (_, chain) = ca.identity(&names, lifetime, now());
            chain.to_pem().into_bytes()
        }
        Conduct::OtherName => issue(&other(), lifetime),
        Conduct::MoreNames => issue(&[names, other()].concat(), lifetime),
        Conduct::TooLong => issue(&names, 2 * lifetime),
        Conduct::Junk => b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
        _ => issue(&names, lifetime),
    }
}

/// Signers of this kind take the names from the CSR.
fn asked_names(csr: &Csr) -> Vec<SubjectName> {
    const DNS: Tag = Tag::ContextSpecific {
        constructed: false,
        number: TagNumber(2),
    };
    const URI: Tag = Tag::ContextSpecific {
        constructed: false,
        number: TagNumber(6),
    };
    let mut names = Vec::new();
    for extension in csr.requested().unwrap() {
        assert_eq!(extension.oid, "2.5.29.17", "screened");
        let list = AnyRef::from_der(extension.value).unwrap();
        let mut list = SliceReader::new(list.value()).unwrap();
        while !list.is_finished() {
            let name = AnyRef::decode(&mut list).unwrap();
            if matches!(name.tag(), DNS | URI) {
                let text = std::str::from_utf8(name.value()).unwrap();
                names.push(text.parse().unwrap());
            }
        }
    }
    names
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "said by a stand-in",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

async fn write<K>(api: &Api<K>, name: &str, status: Value)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch = Patch::Merge(json!({ "status": status }));
    let written = api
        .patch_status(name, &PatchParams::default(), &patch)
        .await;
    // Whoever waited may have given up, and deleted it.
    if let Err(error) = written {
        eprintln!("stand-in: {name}: {error}");
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
