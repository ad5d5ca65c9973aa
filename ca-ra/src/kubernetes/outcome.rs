//! How requests end: one watch tells it of all of them, by name.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::watcher::Event;
use tokio::sync::oneshot;

use super::answer::Answer;
use super::requests::Request;

/// How a request ends. That nobody decides is seen by whoever waits.
pub(super) type Verdict = Result<Answer, Refusal>;

/// Why a request ends without a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// An approver will not have it.
    Denied(String),
    /// The signer says that it can never be signed.
    Invalid(String),
    /// The signer has given up.
    Failed(String),
    /// Somebody has deleted it.
    Deleted,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, why) = match self {
            Self::Denied(why) => ("was denied", why),
            Self::Invalid(why) => ("is invalid to the signer", why),
            Self::Failed(why) => ("has failed", why),
            Self::Deleted => return f.write_str("was deleted by somebody"),
        };
        // Others have written it: no more than a log can bear.
        let why: String = why.chars().take(LONGEST_REASON).collect();
        write!(f, "{what}: {why:?}")
    }
}

/// Those who wait, by the name of what they wait for.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcomes(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    by_name: HashMap<String, Waiter>,
    /// While the watch lists everything anew: those that were there before and have not been listed yet.
    unlisted: HashSet<String>,
}

#[derive(Debug)]
struct Waiter {
    tell: oneshot::Sender<Verdict>,
    /// Before, that it is not there says nothing.
    is_created: bool,
}

impl Outcomes {
    /// Waits for an object that is **to be created after this**: so nothing about it is missed.
    pub(super) fn expect(&self, name: &str) -> Expected {
        let (tell, told) = oneshot::channel();
        let waiter = Waiter {
            tell,
            is_created: false,
        };
        self.lock().by_name.insert(name.to_owned(), waiter);
        Expected {
            name: name.to_owned(),
            told,
            outcomes: self.clone(),
        }
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.lock().by_name.len()
    }

    /// Whether somebody waits for the object of this name.
    pub(super) fn are_waited_for(&self, name: &str) -> bool {
        self.lock().by_name.contains_key(name)
    }

    /// Takes in what the watch has seen.
    pub(super) fn see<K: Request>(&self, event: Event<K>) {
        let mut waiting = self.lock();
        match event {
            Event::Apply(object) => waiting.look_at(&object),
            Event::Delete(object) => {
                // What it came to before it went counts: it may have been tidied up before we saw it.
                waiting.look_at(&object);
                waiting.end(&object.name_any(), Err(Refusal::Deleted));
            }
            Event::Init => {
                let created = waiting.by_name.iter().filter(|(_, each)| each.is_created);
                waiting.unlisted = created.map(|(name, _)| name.clone()).collect();
            }
            Event::InitApply(object) => {
                waiting.unlisted.remove(&object.name_any());
                waiting.look_at(&object);
            }
            Event::InitDone => {
                for name in std::mem::take(&mut waiting.unlisted) {
                    waiting.end(&name, Err(Refusal::Deleted));
                }
            }
        }
    }

    /// Held for a look at the table, never across a wait.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn look_at<K: Request>(&mut self, object: &K) {
        if let Some(verdict) = object.verdict() {
            self.end(&object.name_any(), verdict);
        }
    }

    fn end(&mut self, name: &str, verdict: Verdict) {
        if let Some(waiter) = self.by_name.remove(name) {
            // Nobody listens any more: then there is nobody to be told.
            let _ = waiter.tell.send(verdict);
        }
    }
}

/// An object whose end is waited for, until this is dropped.
#[derive(Debug)]
pub(super) struct Expected {
    name: String,
    told: oneshot::Receiver<Verdict>,
    outcomes: Outcomes,
}

impl Expected {
    /// From now on it is missed if it is not there.
    pub(super) fn is_created(&self) {
        if let Some(waiter) = self.outcomes.lock().by_name.get_mut(&self.name) {
            waiter.is_created = true;
        }
    }

    pub(super) async fn verdict(&mut self) -> Verdict {
        match (&mut self.told).await {
            Ok(verdict) => verdict,
            // The table keeps the other end for as long as there is this one.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.outcomes.lock().by_name.remove(&self.name);
    }
}

/// In characters.
const LONGEST_REASON: usize = 512;

#[cfg(test)]
mod tests {
    use super::super::certificate_request::CertificateRequest;
    use super::*;

    fn object(name: &str, status: &serde_json::Value) -> CertificateRequest {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name},
            "spec": {"request": "AAAA", "issuerRef": {"name": "ca"}},
            "status": status,
        }))
        .unwrap()
    }

    fn open(name: &str) -> CertificateRequest {
        object(name, &serde_json::json!({}))
    }

    fn issued(name: &str) -> CertificateRequest {
        object(name, &serde_json::json!({"certificate": "QQ=="}))
    }

    fn told(expected: &mut Expected) -> Option<Verdict> {
        expected.told.try_recv().ok()
    }

    #[test]
    fn each_outcome_goes_to_the_one_who_waits_for_it() {
        let outcomes = Outcomes::default();
        let (mut a, mut b) = (outcomes.expect("a"), outcomes.expect("b"));
        outcomes.see(Event::Apply(open("a")));
        outcomes.see(Event::Apply(issued("of-somebody-else")));
        assert_eq!(told(&mut a), None);
        outcomes.see(Event::Apply(issued("a")));
        assert!(matches!(told(&mut a), Some(Ok(_))));
        assert_eq!(told(&mut b), None);
        outcomes.see(Event::Delete(open("b")));
        assert_eq!(told(&mut b), Some(Err(Refusal::Deleted)));
        assert_eq!(outcomes.count(), 0);
    }

    #[test]
    fn what_was_issued_before_it_was_deleted_counts() {
        let outcomes = Outcomes::default();
        let mut a = outcomes.expect("a");
        outcomes.see(Event::Delete(issued("a")));
        assert!(matches!(told(&mut a), Some(Ok(_))));
    }

    /// A watch that was closed begins with a list: what happened in between is in it, or missing from it.
    #[test]
    fn a_list_tells_what_the_watch_has_missed() {
        let outcomes = Outcomes::default();
        let mut all = ["gone", "kept", "issued"].map(|name| outcomes.expect(name));
        all.iter().for_each(Expected::is_created);
        let mut not_yet = outcomes.expect("not-yet");
        outcomes.see::<CertificateRequest>(Event::Init);
        // Created while the list is on its way: it need not be in it.
        let mut fresh = outcomes.expect("fresh");
        fresh.is_created();
        outcomes.see(Event::InitApply(open("kept")));
        outcomes.see(Event::InitApply(issued("issued")));
        outcomes.see::<CertificateRequest>(Event::InitDone);
        let [gone, kept, issued] = &mut all;
        assert_eq!(told(gone), Some(Err(Refusal::Deleted)));
        assert!(matches!(told(issued), Some(Ok(_))));
        for open in [kept, &mut not_yet, &mut fresh] {
            assert_eq!(told(open), None, "{}", open.name);
        }
    }

    #[test]
    fn who_stops_waiting_leaves_nothing_behind() {
        let outcomes = Outcomes::default();
        drop(outcomes.expect("a"));
        assert_eq!(outcomes.count(), 0);
        outcomes.see(Event::Apply(issued("a")));
    }

    #[test]
    fn reasons_of_others_are_short_and_on_one_line() {
        let refusal = Refusal::Failed(format!("a\nb{}", "x".repeat(10_000)));
        let text = refusal.to_string();
        assert!(text.len() < 600 && !text.contains('\n'), "{text}");
    }
}
