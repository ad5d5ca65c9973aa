//! The roots as a ClusterTrustBundle: one object for the whole cluster, which pods mount by its signer.

use std::sync::Arc;
use std::time::Duration;

use ca_core::{Backoff, random_unit};
use futures_util::StreamExt as _;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::MANAGER;
use super::agenda::{Agenda, until};
use super::config_maps::heard;
use super::contents::Contents;
use super::status::PublishStatus;
use crate::kubernetes::{CallError, call, watch};

/// Keeps it as it should be, until it is dropped.
pub(super) async fn run(client: Client, mut contents: Contents, status: PublishStatus) {
    let api = served(&client, &status).await;
    let only = Config::default().fields(&format!("metadata.name={NAME}"));
    let mut events = std::pin::pin!(watch(api.clone(), only));
    let mut agenda = Agenda::new();
    // What it says; `None` before the first list.
    let mut found: Option<Option<DynamicObject>> = None;
    let mut listed = None;
    loop {
        let wanted = contents.roots();
        let is_right = found
            .as_ref()
            .is_none_or(|found| found.as_ref().is_some_and(|found| says(found, &wanted)));
        match is_right {
            true => agenda.drop(&()),
            false => agenda.add(&(), Instant::now()),
        }
        status.objects(KIND, |objects| {
            (objects.wanted, objects.outdated) = (1, (!is_right).into());
        });
        if agenda.take(Instant::now(), random_unit()).is_some() {
            match apply(&api, &wanted).await {
                Ok(object) => {
                    found = Some(Some(object));
                    status.objects(KIND, |objects| objects.written += 1);
                }
                Err(error) => status.failed(KIND, NAME, &error.to_string()),
            }
            continue;
        }
        tokio::select! {
            Some(event) = events.next() => match heard(event, "ClusterTrustBundles") {
                Some(Event::Init) => listed = None,
                Some(Event::InitApply(object)) => listed = Some(object),
                Some(Event::InitDone) => found = Some(listed.take()),
                Some(Event::Apply(object)) => found = Some(Some(object)),
                Some(Event::Delete(_)) => found = Some(None),
                None => {}
            },
            () = contents.changed() => agenda.begin_anew(),
            () = until(agenda.next()) => {}
        }
    }
}

async fn apply(api: &Api<DynamicObject>, roots: &Arc<str>) -> Result<DynamicObject, CallError> {
    let params = PatchParams::apply(MANAGER).force();
    let body = applied(api.resource_url(), roots);
    call(api.patch(NAME, &params, &Patch::Apply(&body))).await
}

fn applied(url: &str, roots: &str) -> Value {
    let version = VERSIONS
        .iter()
        .find(|version| url.contains(&format!("/{version}/")));
    json!({
        "apiVersion": format!("{GROUP}/{}", version.unwrap_or(&VERSIONS[0])),
        "kind": KIND_NAME,
        "metadata": { "name": NAME },
        "spec": { "signerName": SIGNER, "trustBundle": roots },
    })
}

fn says(object: &DynamicObject, roots: &str) -> bool {
    object.data["spec"]["trustBundle"] == roots && object.data["spec"]["signerName"] == SIGNER
}

/// Looks for the newest version that this API server has, until there is one.
async fn served(client: &Client, status: &PublishStatus) -> Api<DynamicObject> {
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        let mut reasons = Vec::new();
        for version in VERSIONS {
            let group = format!("{GROUP}/{version}");
            match call(client.list_api_group_resources(&group)).await {
                Ok(list) if list.resources.iter().any(|each| each.name == PLURAL) => {
                    let kind = GroupVersionKind::gvk(GROUP, version, KIND_NAME);
                    let resource = ApiResource::from_gvk_with_plural(&kind, PLURAL);
                    return Api::all_with(client.clone(), &resource);
                }
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => reasons.push(error.to_string()),
            }
        }
        let reason = match reasons.pop() {
            Some(reason) => reason,
            None => "this API server has no ClusterTrustBundles".into(),
        };
        status.failed(KIND, NAME, &reason);
        tokio::time::sleep(backoff.next(random_unit())).await;
    }
}

/// As Istio calls them.
const NAME: &str = "istio.io:istiod-ca:root-cert";
const SIGNER: &str = "istio.io/istiod-ca";

const GROUP: &str = "certificates.k8s.io";
/// The newest first.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const KIND_NAME: &str = "ClusterTrustBundle";
const PLURAL: &str = "clustertrustbundles";
const KIND: &str = "cluster_trust_bundle";
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_is_served_is_the_one_that_is_applied() {
        let url = "/apis/certificates.k8s.io/v1beta1/clustertrustbundles";
        let body = applied(url, "roots");
        assert_eq!(body["apiVersion"], "certificates.k8s.io/v1beta1");
        let object: DynamicObject = serde_json::from_value(body).unwrap();
        assert!(says(&object, "roots") && !says(&object, "others"));
    }
}
