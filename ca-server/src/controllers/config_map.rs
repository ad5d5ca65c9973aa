//! One ConfigMap with roots: what is known of it, what it is to say, and what follows from the two.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

/// Which of our ConfigMaps it is: they are in many namespaces under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Artifact {
    pub(super) name: String,
    pub(super) key: &'static str,
    /// Which installation publishes it: another one has other namespaces, and takes away nothing of ours.
    pub(super) publisher: Arc<str>,
}

/// What is needed of one that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    text: Option<Arc<str>>,
    is_labelled: bool,
    is_ours: bool,
    has_more: bool,
    uid: Option<String>,
    /// Grows with each change of the object.
    version: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Apply(Arc<str>),
    /// All of it is ours.
    Delete {
        uid: Option<String>,
    },
    /// Others keep something in it.
    Release,
}

impl Found {
    /// `wanted` is shared with it where it says the same, because there may be thousands.
    pub(super) fn of(object: ConfigMap, artifact: &Artifact, wanted: Option<&Arc<str>>) -> Self {
        let labels = object.metadata.labels.unwrap_or_default();
        let annotations = object.metadata.annotations.unwrap_or_default();
        let publisher = annotations.get(PUBLISHER);
        let mut data = object.data.unwrap_or_default();
        let text = data.remove(artifact.key);
        let text = text.map(|text| match wanted {
            Some(wanted) if **wanted == *text => Arc::clone(wanted),
            _ => Arc::from(text),
        });
        Self {
            text,
            is_labelled: labels.get(LABEL.0).is_some_and(|is| is == LABEL.1),
            is_ours: publisher.is_some_and(|publisher| **publisher == *artifact.publisher),
            has_more: !data.is_empty() || object.binary_data.is_some_and(|data| !data.is_empty()),
            uid: object.metadata.uid,
            version: version(object.metadata.resource_version.as_deref()),
        }
    }

    /// Whether it tells of a later time than `other`.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        self.version > other.version
    }
}

/// They are numbers that can be compared, and one that is not is older than all.
fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// `wanted` is what it is to say; `None`: it is not to be there.
pub(super) fn step(wanted: Option<&Arc<str>>, found: Option<&Found>) -> Step {
    match (wanted, found) {
        (Some(wanted), Some(found))
            if found.is_ours && found.is_labelled && found.text.as_ref() == Some(wanted) =>
        {
            Step::Nothing
        }
        (Some(wanted), _) => Step::Apply(Arc::clone(wanted)),
        // What does not carry our mark was put there by somebody else.
        (None, Some(found)) if found.is_ours => match found.has_more {
            true => Step::Release,
            false => Step::Delete {
                uid: found.uid.clone(),
            },
        },
        (None, _) => Step::Nothing,
    }
}

/// What is applied: our parts alone, so that what others keep in it stays.
pub(super) fn applied(artifact: &Artifact, text: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": artifact.name,
            "labels": { LABEL.0: LABEL.1 },
            "annotations": { PUBLISHER: &*artifact.publisher },
        },
        "data": { artifact.key: text },
    })
}

/// Applied, it takes away what we have applied before.
pub(super) fn released(artifact: &Artifact) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": artifact.name },
    })
}

/// Istio's, which its own tools look for.
const LABEL: (&str, &str) = ("istio.io/config", "true");
/// The annotation that says which installation has published it, and may take it away.
const PUBLISHER: &str = "mesh-ca/published-by";

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact() -> Artifact {
        Artifact {
            name: "istio-ca-root-cert".into(),
            key: "root-cert.pem",
            publisher: "istio-system/mesh-ca".into(),
        }
    }

    fn found(change: impl FnOnce(&mut ConfigMap)) -> Found {
        let mut object: ConfigMap = serde_json::from_value(applied(&artifact(), "roots")).unwrap();
        change(&mut object);
        Found::of(object, &artifact(), None)
    }

    /// As Istio makes it.
    fn without_mark(map: &mut ConfigMap) {
        map.metadata.annotations = None;
    }

    #[test]
    fn what_is_missing_or_edited_is_applied_and_what_is_right_is_left_alone() {
        let wanted: Arc<str> = "roots".into();
        let apply = Step::Apply(Arc::clone(&wanted));
        let step = |found: Option<Found>| step(Some(&wanted), found.as_ref());
        assert_eq!(step(None), apply);
        assert_eq!(step(Some(found(|_| {}))), Step::Nothing);
        let with_more = found(|map| {
            let data = map.data.as_mut().unwrap();
            data.insert("other".into(), "x".into());
        });
        assert_eq!(step(Some(with_more)), Step::Nothing);
        let edited = found(|map| {
            let data = map.data.as_mut().unwrap();
            data.insert("root-cert.pem".into(), "x".into());
        });
        assert_eq!(step(Some(edited)), apply);
        assert_eq!(step(Some(found(|map| map.data = None))), apply);
        assert_eq!(step(Some(found(|map| map.metadata.labels = None))), apply);
        assert_eq!(step(Some(found(without_mark))), apply);
    }

    #[test]
    fn only_what_carries_our_mark_is_taken_away_and_of_it_only_what_is_ours() {
        assert_eq!(step(None, None), Step::Nothing);
        let uid = Some("u".to_owned());
        let ours = found(|map| map.metadata.uid = uid.clone());
        assert_eq!(step(None, Some(&ours)), Step::Delete { uid });
        assert_eq!(step(None, Some(&found(without_mark))), Step::Nothing);
        let of_another = found(|map| {
            let annotations = map.metadata.annotations.as_mut().unwrap();
            annotations.insert(PUBLISHER.into(), "istio-system/other".into());
        });
        assert_eq!(step(None, Some(&of_another)), Step::Nothing);
        let shared = found(|map| {
            let data = map.data.as_mut().unwrap();
            data.insert("other".into(), "x".into());
        });
        assert_eq!(step(None, Some(&shared)), Step::Release);
    }
}
