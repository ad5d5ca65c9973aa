//! The roots in every selected namespace, and the revocation lists beside them.
//!
//! One task knows what the watches have told and what is to be there, and has a bounded number of writes under way. It
//! writes what differs, so it makes no difference whether it has just begun to lead, was cut off, or somebody edits.

use std::collections::HashSet;
use std::sync::Arc;

use ca_core::random_unit;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, SelectAll};
use futures_util::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{Selector, SelectorExt as _};
use kube::runtime::watcher::{Config, Error as WatchError, Event};
use kube::{Api, Client, ResourceExt as _};
use tokio::time::Instant;

use super::MANAGER;
use super::agenda::{Agenda, until};
use super::config_map::{Artifact, Found, Step, applied, released, step};
use super::contents::Contents;
use super::index::Index;
use super::status::PublishStatus;
use crate::config::ConfigMaps;
use crate::kubernetes::{CallError, call, watch};

/// How many writes may be under way. The API server shares itself out among its clients by how many calls each has open.
const AT_ONCE: usize = 16;

/// A namespace, and the place of an artifact in the list of them.
type Key = (String, usize);

/// What each namespace is to have.
pub(super) struct Distributor {
    client: Client,
    selectors: Vec<Selector>,
    artifacts: Vec<(Artifact, Option<Arc<str>>, Index<Found>)>,
    namespaces: Index<Standing>,
    agenda: Agenda<Key>,
    /// What is being written.
    busy: HashSet<Key>,
    /// What is to be there, and what of it is not there as it should be.
    wanted: HashSet<Key>,
    outdated: HashSet<Key>,
    status: PublishStatus,
}

/// How a namespace stands to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Selected,
    NotSelected,
    /// It is on its way out with all that is in it.
    Leaving,
}

type Written = (Key, Step, Result<Option<ConfigMap>, CallError>);

impl Distributor {
    pub(super) fn new(
        client: Client,
        config: ConfigMaps,
        publisher: &Arc<str>,
        status: PublishStatus,
    ) -> Self {
        let artifact = |name, key| {
            let publisher = Arc::clone(publisher);
            let artifact = Artifact {
                name,
                key,
                publisher,
            };
            (artifact, None, Index::new())
        };
        let mut artifacts = vec![artifact(config.roots, ROOTS_KEY)];
        artifacts.extend(config.crl.map(|name| artifact(name, CRL_KEY)));
        Self {
            client,
            selectors: config.namespaces,
            artifacts,
            namespaces: Index::new(),
            agenda: Agenda::new(),
            busy: HashSet::new(),
            wanted: HashSet::new(),
            outdated: HashSet::new(),
            status,
        }
    }

    /// Keeps them as they should be, until it is dropped.
    pub(super) async fn run(mut self, mut contents: Contents) {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let namespaces = watch(namespaces, Config::default());
        let mut namespaces = std::pin::pin!(namespaces);
        let mut maps = SelectAll::new();
        for (place, (artifact, ..)) in self.artifacts.iter().enumerate() {
            let only = format!("metadata.name={}", artifact.name);
            let only = Config::default().fields(&only);
            let api = Api::<ConfigMap>::all(self.client.clone());
            let events = watch(api, only);
            maps.push(events.map(move |event| (place, event)).boxed());
        }
        let mut writes = FuturesUnordered::new();
        self.aim_at(&contents);
        loop {
            while writes.len() < AT_ONCE
                && let Some(write) = self.next_write()
            {
                writes.push(write);
            }
            // With all hands full, what is due waits for the next one that is done.
            let due = self.agenda.next().filter(|_| writes.len() < AT_ONCE);
            tokio::select! {
                Some(event) = namespaces.next() => self.namespace_event(event),
                Some((place, event)) = maps.next() => self.map_event(place, event),
                Some(written) = writes.next() => self.finished(written),
                () = contents.changed() => self.aim_at(&contents),
                () = until(due) => {}
            }
            let (wanted, outdated) = (self.wanted.len() as u64, self.outdated.len() as u64);
            self.status.objects(KIND, |objects| {
                (objects.wanted, objects.outdated) = (wanted, outdated);
            });
        }
    }

    fn aim_at(&mut self, contents: &Contents) {
        let texts = [Some(contents.roots()), contents.revocation_lists()];
        let mut is_new = false;
        for ((_, wanted, _), text) in self.artifacts.iter_mut().zip(texts) {
            is_new |= *wanted != text;
            *wanted = text;
        }
        if is_new {
            self.agenda.begin_anew();
            self.consider_all();
        }
    }

    fn namespace_event(&mut self, event: Result<Event<Namespace>, WatchError>) {
        let Some(event) = heard(event, "namespaces") else {
            return;
        };
        let was_complete = self.namespaces.is_complete();
        let selectors = &self.selectors;
        let value = |namespace: Namespace| standing(&namespace, selectors);
        let touched = self
            .namespaces
            .take(event, kube::ResourceExt::name_any, value);
        if !was_complete && self.namespaces.is_complete() {
            self.consider_all();
        }
        for namespace in touched {
            for place in 0..self.artifacts.len() {
                self.consider(&(namespace.clone(), place));
            }
        }
    }

    fn map_event(&mut self, place: usize, event: Result<Event<ConfigMap>, WatchError>) {
        let Some(event) = heard(event, "ConfigMaps") else {
            return;
        };
        let (artifact, wanted, found) = &mut self.artifacts[place];
        let was_complete = found.is_complete();
        let value = |map| Found::of(map, artifact, wanted.as_ref());
        let touched = found.take(event, |map| map.namespace().unwrap_or_default(), value);
        if !was_complete && found.is_complete() {
            self.consider_all();
        }
        for namespace in touched {
            self.consider(&(namespace, place));
        }
    }

    fn consider_all(&mut self) {
        let names: Vec<String> = self.namespaces.names().cloned().collect();
        for namespace in names {
            for place in 0..self.artifacts.len() {
                self.consider(&(namespace.clone(), place));
            }
        }
    }

    /// Puts on the agenda what is to be done about one ConfigMap, or takes it off.
    fn consider(&mut self, key: &Key) {
        let step = self.step(key);
        let wanted = self.namespaces.get(&key.0) == Some(&Standing::Selected)
            && self.artifacts[key.1].1.is_some();
        note(&mut self.wanted, key, wanted);
        note(&mut self.outdated, key, matches!(step, Step::Apply(_)));
        match step {
            // A namespace that comes again begins anew.
            Step::Nothing if self.namespaces.get(&key.0).is_none() => self.agenda.forget(key),
            Step::Nothing => self.agenda.drop(key),
            // Looked at again when it is done.
            _ if self.busy.contains(key) => {}
            _ => self.agenda.add(key, Instant::now()),
        }
    }

    fn step(&self, (namespace, place): &Key) -> Step {
        let (_, wanted, found) = &self.artifacts[*place];
        // What was not listed yet may be there and be right.
        if !self.namespaces.is_complete() || !found.is_complete() {
            return Step::Nothing;
        }
        let wanted = match self.namespaces.get(namespace) {
            Some(Standing::Selected) => wanted.as_ref(),
            Some(Standing::NotSelected) => None,
            Some(Standing::Leaving) | None => return Step::Nothing,
        };
        step(wanted, found.get(namespace))
    }

    fn next_write(&mut self) -> Option<BoxFuture<'static, Written>> {
        loop {
            let key = self.agenda.take(Instant::now(), random_unit())?;
            let step = self.step(&key);
            if step == Step::Nothing {
                continue;
            }
            self.busy.insert(key.clone());
            let api = Api::namespaced(self.client.clone(), &key.0);
            let artifact = self.artifacts[key.1].0.clone();
            let write = async move {
                let outcome = write(&api, &artifact, &step).await;
                (key, step, outcome)
            };
            return Some(write.boxed());
        }
    }

    fn finished(&mut self, (key, step, outcome): Written) {
        self.busy.remove(&key);
        let (artifact, wanted, found) = &mut self.artifacts[key.1];
        match outcome {
            Ok(Some(map)) => {
                let now = Found::of(map, artifact, wanted.as_ref());
                // The watch may have told of a later edit already.
                if found
                    .get(&key.0)
                    .is_none_or(|known| now.is_newer_than(known))
                {
                    found.set(key.0.clone(), now);
                }
                self.status.objects(KIND, |objects| match step {
                    Step::Release => objects.removed += 1,
                    _ => objects.written += 1,
                });
            }
            // The watch tells when it is gone.
            Ok(None) => self.status.objects(KIND, |objects| objects.removed += 1),
            // So it, or its namespace, is gone or going: the watch tells.
            Err(error)
                if error.is_not_found()
                    || error.is_conflict()
                    || error.is_namespace_terminating() => {}
            Err(error) => {
                let what = format!("{}/{}", key.0, artifact.name);
                self.status.failed(KIND, &what, &error.to_string());
            }
        }
        self.consider(&key);
    }
}

async fn write(
    api: &Api<ConfigMap>,
    artifact: &Artifact,
    step: &Step,
) -> Result<Option<ConfigMap>, CallError> {
    // Who else has written our parts has lost them: there is one root for the mesh.
    let params = PatchParams::apply(MANAGER).force();
    let body = match step {
        Step::Nothing => return Ok(None),
        Step::Apply(text) => applied(artifact, text),
        Step::Release => released(artifact),
        Step::Delete { uid } => {
            // Not another one of the same name that has come in its place.
            let params = DeleteParams::default().preconditions(Preconditions {
                uid: uid.clone(),
                resource_version: None,
            });
            call(api.delete(&artifact.name, &params)).await?;
            return Ok(None);
        }
    };
    let patched = call(api.patch(&artifact.name, &params, &Patch::Apply(&body))).await;
    patched.map(Some)
}

fn standing(namespace: &Namespace, selectors: &[Selector]) -> Standing {
    let phase = namespace
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if namespace.metadata.deletion_timestamp.is_some() || phase == Some("Terminating") {
        return Standing::Leaving;
    }
    let labels = namespace.labels();
    let is_ignored = IGNORED.contains(&namespace.name_any().as_str());
    let fits = selectors.is_empty() || selectors.iter().any(|each| each.matches(labels));
    match fits && !is_ignored {
        true => Standing::Selected,
        false => Standing::NotSelected,
    }
}

/// An event, if there was one; what kept it from coming is told.
pub(super) fn heard<K>(event: Result<Event<K>, WatchError>, of: &str) -> Option<Event<K>> {
    match event {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::warn!("watch of {of} interrupted: {error}");
            None
        }
    }
}

fn note(set: &mut HashSet<Key>, key: &Key, is_in: bool) {
    if !is_in {
        set.remove(key);
    } else if !set.contains(key) {
        set.insert(key.clone());
    }
}

/// As Istio calls it.
const ROOTS_KEY: &str = "root-cert.pem";
const CRL_KEY: &str = "ca-crl.pem";
/// Nobody runs a workload there; Istio leaves them out too.
const IGNORED: [&str; 3] = ["kube-public", "kube-node-lease", "local-path-storage"];
const KIND: &str = "config_map";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controllers::parse_selector;

    fn namespace(name: &str, labels: &serde_json::Value, phase: &str) -> Namespace {
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels },
            "status": { "phase": phase },
        }))
        .unwrap()
    }

    #[test]
    fn namespaces_are_selected_by_any_selector_unless_nobody_works_in_them_or_they_are_leaving() {
        let mesh = namespace("shop", &json!({"mesh": "on"}), "Active");
        let plain = namespace("kube-system", &json!({}), "Active");
        for name in IGNORED {
            let ignored = namespace(name, &json!({"mesh": "on"}), "Active");
            assert_eq!(standing(&ignored, &[]), Standing::NotSelected);
        }
        assert_eq!(standing(&plain, &[]), Standing::Selected);
        let selectors = ["mesh=off", "mesh=on"].map(|text| parse_selector(text).unwrap());
        assert_eq!(standing(&mesh, &selectors), Standing::Selected);
        assert_eq!(standing(&mesh, &selectors[..1]), Standing::NotSelected);
        assert_eq!(standing(&plain, &selectors), Standing::NotSelected);
        let leaving = namespace("shop", &json!({"mesh": "on"}), "Terminating");
        assert_eq!(standing(&leaving, &selectors), Standing::Leaving);
    }
}
