//! `caBundle` in webhook configurations: by it the API server knows the certificate of a webhook's server, so it changes
//! with our roots.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_core::random_unit;
use futures_util::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::SelectorExt as _;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::MANAGER;
use super::agenda::{Agenda, until};
use super::config_maps::heard;
use super::contents::Contents;
use super::index::Index;
use super::status::PublishStatus;
use crate::config::Webhooks;
use crate::kubernetes::{CallError, call, watch};

/// Keeps all of them as they should be, until it is dropped. Ends at once where there are none to keep.
pub(super) async fn run(
    client: &Client,
    config: &Webhooks,
    contents: impl Fn() -> Contents,
    status: &PublishStatus,
) {
    let mutating = Keeper {
        api: api::<MutatingWebhookConfiguration>(client),
        kind: "MutatingWebhookConfiguration",
        names: &config.mutating,
        config,
        status,
    };
    let validating = Keeper {
        api: api::<ValidatingWebhookConfiguration>(client),
        kind: "ValidatingWebhookConfiguration",
        names: &config.validating,
        config,
        status,
    };
    tokio::join!(mutating.run(contents()), validating.run(contents()));
}

/// Both kinds look the same where it matters.
fn api<K: Resource<DynamicType = ()>>(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
}

struct Keeper<'a> {
    api: Api<DynamicObject>,
    kind: &'static str,
    names: &'a [String],
    config: &'a Webhooks,
    status: &'a PublishStatus,
}

impl Keeper<'_> {
    async fn run(self, mut contents: Contents) {
        if self.names.is_empty() && self.config.labelled.is_none() {
            return;
        }
        let events = watch(self.api.clone(), Config::default());
        let mut events = std::pin::pin!(events);
        let mut found: Index<DynamicObject> = Index::new();
        let mut agenda: Agenda<String> = Agenda::new();
        // What has failed, so that the next attempt is a retry.
        let mut is_retry = std::collections::HashSet::new();
        loop {
            let bundle = STANDARD.encode(contents.roots().as_bytes());
            while let Some(name) = agenda.take(Instant::now(), random_unit()) {
                let Some(object) = found.get(&name) else {
                    continue;
                };
                let Some(body) = self.applied(object, &bundle) else {
                    continue;
                };
                self.status.webhook(&name, |counts| {
                    counts.attempts += 1;
                    counts.retries += u64::from(is_retry.contains(&name));
                });
                match self.apply(&name, &body).await {
                    Ok(object) => {
                        is_retry.remove(&name);
                        found.set(name, object);
                    }
                    Err(error) => {
                        let reason = reason(&error);
                        self.status.webhook(&name, |counts| {
                            *counts.failures.entry(reason).or_default() += 1;
                        });
                        self.status.failed(KIND, &name, &error.to_string());
                        agenda.add(&name, Instant::now());
                        is_retry.insert(name);
                    }
                }
            }
            tokio::select! {
                Some(event) = events.next() => {
                    if let Some(event) = heard(event, self.kind) {
                        self.take(event, &mut found, &mut agenda);
                    }
                }
                () = contents.changed() => {
                    agenda.begin_anew();
                    for name in found.names() {
                        agenda.add(name, Instant::now());
                    }
                }
                () = until(agenda.next()) => {}
            }
        }
    }

    fn take(
        &self,
        event: Event<DynamicObject>,
        found: &mut Index<DynamicObject>,
        agenda: &mut Agenda<String>,
    ) {
        for name in found.take(event, kube::ResourceExt::name_any, |object| object) {
            match found.get(&name) {
                Some(object) if self.is_ours(object) => agenda.add(&name, Instant::now()),
                // Nothing of it is needed any more.
                Some(_) => {
                    found.remove(&name);
                    agenda.forget(&name);
                }
                None => agenda.forget(&name),
            }
        }
    }

    fn is_ours(&self, object: &DynamicObject) -> bool {
        let labelled = self.config.labelled.as_ref();
        self.names.contains(&object.name_any())
            || labelled.is_some_and(|selector| selector.matches(object.labels()))
    }

    async fn apply(&self, name: &str, body: &Value) -> Result<DynamicObject, CallError> {
        let params = PatchParams::apply(MANAGER).force();
        call(self.api.patch(name, &params, &Patch::Apply(body))).await
    }

    /// What is to be applied, if anything differs: the `caBundle` of each webhook, by its name, and nothing else of it.
    fn applied(&self, object: &DynamicObject, bundle: &str) -> Option<Value> {
        let webhooks = object.data["webhooks"].as_array()?;
        let is_right = |webhook: &Value| webhook["clientConfig"]["caBundle"] == bundle;
        if webhooks.iter().all(is_right) {
            return None;
        }
        let webhooks: Vec<Value> = webhooks
            .iter()
            .map(|webhook| {
                json!({ "name": webhook["name"], "clientConfig": { "caBundle": bundle } })
            })
            .collect();
        Some(json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": self.kind,
            "metadata": { "name": object.name_any() },
            "webhooks": webhooks,
        }))
    }
}

/// In the words of Istio's metric.
fn reason(error: &CallError) -> &'static str {
    if error.is_not_found() {
        "webhook_config_not_found"
    } else {
        "webhook_update_failure"
    }
}

const KIND: &str = "webhook";
