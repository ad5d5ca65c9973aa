//! One ConfigMap with roots: what is known of it, what it is to say, and what follows from the two.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::MANAGER;

/// Which of our ConfigMaps it is: they are in many namespaces under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Artifact {
    pub(super) name: String,
    pub(super) key: &'static str,
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
    pub(super) fn of(object: ConfigMap, key: &str, wanted: Option<&Arc<str>>) -> Self {
        let labels = object.metadata.labels.unwrap_or_default();
        let has = |(name, value): (&str, &str)| labels.get(name).is_some_and(|is| is == value);
        let mut data = object.data.unwrap_or_default();
        let text = data.remove(key);
        let text = text.map(|text| match wanted {
            Some(wanted) if **wanted == *text => Arc::clone(wanted),
            _ => Arc::from(text),
        });
        Self {
            text,
            is_labelled: has(ISTIOS_LABEL),
            is_ours: has(OUR_LABEL),
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
            "labels": { ISTIOS_LABEL.0: ISTIOS_LABEL.1, OUR_LABEL.0: OUR_LABEL.1 },
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
const ISTIOS_LABEL: (&str, &str) = ("istio.io/config", "true");
/// What carries it is ours to take away.
const OUR_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", MANAGER);

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact() -> Artifact {
        Artifact {
            name: "istio-ca-root-cert".into(),
            key: "root-cert.pem",
        }
    }

    fn found(change: impl FnOnce(&mut ConfigMap)) -> Found {
        let mut object: ConfigMap = serde_json::from_value(applied(&artifact(), "roots")).unwrap();
        change(&mut object);
        Found::of(object, "root-cert.pem", None)
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
        for label in [ISTIOS_LABEL.0, OUR_LABEL.0] {
            let unlabelled = found(|map| {
                map.metadata.labels.as_mut().unwrap().remove(label);
            });
            assert_eq!(step(Some(unlabelled)), apply, "{label}");
        }
    }

    #[test]
    fn only_what_carries_our_mark_is_taken_away_and_of_it_only_what_is_ours() {
        assert_eq!(step(None, None), Step::Nothing);
        let uid = Some("u".to_owned());
        let ours = found(|map| map.metadata.uid = uid.clone());
        assert_eq!(step(None, Some(&ours)), Step::Delete { uid });
        let istios = found(|map| {
            map.metadata.labels.as_mut().unwrap().remove(OUR_LABEL.0);
        });
        assert_eq!(step(None, Some(&istios)), Step::Nothing);
        let shared = found(|map| {
            let data = map.data.as_mut().unwrap();
            data.insert("other".into(), "x".into());
        });
        assert_eq!(step(None, Some(&shared)), Step::Release);
    }
}
