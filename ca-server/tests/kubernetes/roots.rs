//! The roots out in the cluster: everywhere they are to be, nowhere else, and as they are now.

use std::sync::Arc;
use std::time::Instant;

use ca_core::TrustBundle;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::cluster::{Cluster, from_json};
use crate::deadline::{eventually, within};
use crate::server::Server;
use crate::state::rotate;

const MAP: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";

/// One for the tests of this file, in which nobody else publishes anything. Each test has namespaces by a label of its own.
pub(crate) async fn cluster() -> Arc<Cluster> {
    static CLUSTER: OnceCell<Arc<Cluster>> = OnceCell::const_new();
    let cluster = CLUSTER.get_or_init(|| async { Arc::new(Cluster::start().await) });
    Arc::clone(cluster.await)
}

async fn start(cluster: &Cluster, flags: &[&str]) -> (Server, String) {
    let namespace = cluster.namespace("mesh").await;
    let kubeconfig = cluster.install(&namespace).await;
    (
        Server::start(&kubeconfig, &namespace, flags).await,
        namespace,
    )
}

pub(crate) async fn namespace(cluster: &Cluster, name: &str, labels: Value) {
    let api: Api<Namespace> = Api::all(cluster.admin());
    let made = from_json(json!({ "metadata": { "name": name, "labels": labels } }));
    within("namespace", api.create(&PostParams::default(), &made))
        .await
        .unwrap();
}

async fn label(cluster: &Cluster, name: &str, labels: Value) {
    let api: Api<Namespace> = Api::all(cluster.admin());
    let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
    within(
        "namespace",
        api.patch(name, &PatchParams::default(), &patch),
    )
    .await
    .unwrap();
}

fn maps(cluster: &Cluster, namespace: &str) -> Api<ConfigMap> {
    Api::namespaced(cluster.admin(), namespace)
}

async fn map(cluster: &Cluster, namespace: &str) -> Option<ConfigMap> {
    let api = maps(cluster, namespace);
    within("ConfigMap", api.get_opt(MAP)).await.unwrap()
}

/// Waits until it is there and says this.
pub(crate) async fn until_says(cluster: &Cluster, namespace: &str, roots: &str) -> ConfigMap {
    let attempt = async || {
        let found = map(cluster, namespace).await;
        let is_right = |map: &ConfigMap| {
            let labels = map.metadata.labels.as_ref();
            map.data
                .as_ref()
                .and_then(|data| data.get(KEY))
                .is_some_and(|text| text == roots)
                && labels.is_some_and(|labels| {
                    labels.get("istio.io/config").is_some_and(|is| is == "true")
                })
        };
        found
            .clone()
            .filter(is_right)
            .ok_or_else(|| format!("{namespace}: {found:?}"))
    };
    eventually("ConfigMap as it should be", attempt).await
}

async fn until_gone(cluster: &Cluster, namespace: &str) {
    let attempt = async || match map(cluster, namespace).await {
        None => Ok(()),
        found => Err(format!("{namespace}: {found:?}")),
    };
    eventually("end of the ConfigMap", attempt).await;
}

/// Waits until as many namespaces as these have exactly these roots.
async fn until_all_say(cluster: &Cluster, count: usize, roots: &str) {
    let api: Api<ConfigMap> = Api::all(cluster.admin());
    let only = ListParams::default().fields(&format!("metadata.name={MAP}"));
    let attempt = async || {
        let found = within("list", api.list(&only)).await.unwrap();
        let says = |map: &ConfigMap| map.data.as_ref().is_some_and(|data| data[KEY] == roots);
        let right = found.iter().filter(|map| says(map)).count();
        match (found.items.len(), right) {
            (all, right) if (all, right) == (count, count) => Ok(()),
            counted => Err(format!("{counted:?} of {count}")),
        }
    };
    eventually("roots in all namespaces", attempt).await;
}

fn roots_of(server: &Server) -> TrustBundle {
    TrustBundle::from_pem(server.root_pem().as_bytes()).unwrap()
}

/// Has a second root join the roots.
async fn prepare_next_root(server: &Server) {
    rotate(server, "prepare").unwrap();
    let attempt = async || match roots_of(server).certificates().len() {
        2 => Ok(()),
        count => Err(format!("{count} roots")),
    };
    eventually("next root", attempt).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn five_hundred_namespaces_have_the_roots_also_after_all_were_wiped_replaced_and_left_by_the_leader()
 {
    const COUNT: usize = 500;
    let cluster = Cluster::start().await;
    let (first, home) = start(&cluster, &[]).await;
    let kubeconfig = cluster.install(&home).await;
    first.until_ready().await;
    let api: Api<Namespace> = Api::all(cluster.admin());
    let begun = Instant::now();
    let mut creations: FuturesUnordered<_> = (0..COUNT)
        .map(|number| {
            let api = api.clone();
            async move {
                let name = format!("storm-{number}");
                let made: Namespace = from_json(json!({ "metadata": { "name": name } }));
                within("namespace", api.create(&PostParams::default(), &made))
                    .await
                    .unwrap();
            }
        })
        .collect();
    while creations.next().await.is_some() {}
    let created = begun.elapsed();
    // Those that every API server makes, without kube-public and kube-node-lease.
    let count = within("list", api.list(&ListParams::default()))
        .await
        .unwrap();
    let count = count.items.len() - 2;
    assert!(count >= COUNT + 2);
    until_all_say(&cluster, count, &first.root_pem()).await;
    println!(
        "{COUNT} namespaces in {created:.1?}, all with the roots after {:.1?}",
        begun.elapsed()
    );
    assert!(map(&cluster, "kube-system").await.is_some());
    assert!(map(&cluster, "kube-public").await.is_none());
    assert_eq!(first.metric("mesh_ca_outdated_objects"), 0.0);
    assert_eq!(first.metric("mesh_ca_published_objects"), count as f64);
    assert_eq!(first.metric("mesh_ca_object_failures"), 0.0);

    // Each of these is for every namespace.
    let begun = Instant::now();
    for namespace in within("list", api.list(&ListParams::default()))
        .await
        .unwrap()
    {
        let maps = maps(&cluster, &namespace.name_any());
        let (params, only) = (DeleteParams::default(), ListParams::default());
        let only = only.fields(&format!("metadata.name={MAP}"));
        within("wipe", maps.delete_collection(&params, &only))
            .await
            .unwrap();
    }
    let wiped = begun.elapsed();
    until_all_say(&cluster, count, &first.root_pem()).await;
    println!(
        "wiped in {wiped:.1?}, all repaired after {:.1?}",
        begun.elapsed()
    );

    let begun = Instant::now();
    prepare_next_root(&first).await;
    until_all_say(&cluster, count, &first.root_pem()).await;
    println!("a new root in all after {:.1?}", begun.elapsed());

    let second = Server::start(&kubeconfig, &home, &[]).await;
    second.until_ready().await;
    let roots = second.root_pem();
    // Nothing is written by who does not lead.
    assert_eq!(second.metric("mesh_ca_object_writes"), 0.0);
    first.signal("KILL");
    namespace(&cluster, "late", json!({})).await;
    until_all_say(&cluster, count + 1, &roots).await;
    assert_eq!(second.metric("mesh_ca_leader"), 1.0);
    // What was right was left alone.
    assert_eq!(second.metric("mesh_ca_object_writes"), 1.0);
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn namespaces_that_are_selected_have_the_roots_and_those_that_are_not_any_more_lose_what_is_ours()
 {
    let cluster = cluster().await;
    for (name, labels) in [
        ("select-on", json!({ "select": "on" })),
        ("select-also", json!({ "select": "also" })),
        ("select-not", json!({ "select": "off" })),
        ("select-shared", json!({ "select": "on" })),
        ("select-istios", json!({ "select": "off" })),
    ] {
        namespace(&cluster, name, labels).await;
    }
    // As Istio has left it, or its own.
    let istios: ConfigMap = from_json(json!({
        "metadata": { "name": MAP, "labels": { "istio.io/config": "true" } },
        "data": { KEY: "of Istio" },
    }));
    for name in ["select-istios", "select-on"] {
        let maps = maps(&cluster, name);
        within("ConfigMap", maps.create(&PostParams::default(), &istios))
            .await
            .unwrap();
    }
    let flags = [
        "--configmap-namespace-selector=select=on",
        "--configmap-namespace-selector=select in (also, too)",
    ];
    let (server, _) = start(&cluster, &flags).await;
    let roots = server.root_pem();
    for name in ["select-on", "select-also", "select-shared"] {
        until_says(&cluster, name, &roots).await;
    }
    assert_eq!(map(&cluster, "select-not").await, None);

    // Somebody keeps a text of its own in ours.
    let patch = Patch::Merge(json!({ "data": { "more": "text" } }));
    let shared = maps(&cluster, "select-shared");
    within(
        "ConfigMap",
        shared.patch(MAP, &PatchParams::default(), &patch),
    )
    .await
    .unwrap();
    label(&cluster, "select-not", json!({ "select": "too" })).await;
    until_says(&cluster, "select-not", &roots).await;
    for name in ["select-on", "select-also", "select-shared"] {
        label(&cluster, name, json!({ "select": null })).await;
    }
    until_gone(&cluster, "select-also").await;
    let attempt = async || match map(&cluster, "select-shared").await {
        Some(map)
            if map
                .data
                .as_ref()
                .is_some_and(|data| !data.contains_key(KEY)) =>
        {
            Ok(map)
        }
        found => Err(format!("{found:?}")),
    };
    let left = eventually("release", attempt).await;
    assert_eq!(left.data.unwrap()["more"], "text");
    // It was Istio's before it was ours, and is ours since then.
    until_gone(&cluster, "select-on").await;
    let istios = map(&cluster, "select-istios").await.unwrap();
    assert_eq!(istios.data.unwrap()[KEY], "of Istio");
    assert!(server.metric("mesh_ca_object_removals") >= 3.0);
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn edits_are_repaired_and_what_others_add_stays() {
    let cluster = cluster().await;
    namespace(&cluster, "edit", json!({ "edit": "on" })).await;
    let (server, _) = start(&cluster, &["--configmap-namespace-selector=edit=on"]).await;
    let roots = server.root_pem();
    until_says(&cluster, "edit", &roots).await;
    let maps = maps(&cluster, "edit");
    for edit in [
        json!({ "data": { KEY: "edited" } }),
        json!({ "data": { KEY: null } }),
        json!({ "metadata": { "labels": { "istio.io/config": "false" } } }),
        json!({ "metadata": { "labels": null, "annotations": null } }),
        json!({ "data": { KEY: "edited", "more": "text" } }),
    ] {
        let patch = Patch::Merge(&edit);
        within("edit", maps.patch(MAP, &PatchParams::default(), &patch))
            .await
            .unwrap();
        until_says(&cluster, "edit", &roots).await;
    }
    let params = DeleteParams::default();
    let left = until_says(&cluster, "edit", &roots).await;
    assert_eq!(left.data.unwrap()["more"], "text");
    within("deletion", maps.delete(MAP, &params)).await.unwrap();
    until_says(&cluster, "edit", &roots).await;
    assert!(map(&cluster, "default").await.is_none());
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_namespace_that_is_leaving_is_left_alone() {
    let cluster = cluster().await;
    namespace(&cluster, "leave", json!({ "leave": "on" })).await;
    namespace(&cluster, "leave-not", json!({ "leave": "on" })).await;
    let (server, _) = start(&cluster, &["--configmap-namespace-selector=leave=on"]).await;
    let roots = server.root_pem();
    until_says(&cluster, "leave", &roots).await;
    until_says(&cluster, "leave-not", &roots).await;
    let api: Api<Namespace> = Api::all(cluster.admin());
    within("deletion", api.delete("leave", &DeleteParams::default()))
        .await
        .unwrap();
    let attempt = async || match server.metric("mesh_ca_published_objects") {
        1.0 => Ok(()),
        count => Err(format!("{count} wanted")),
    };
    eventually("one namespace less", attempt).await;
    // Nobody finishes its end here, so it stays for good; what is deleted in it is not written again.
    let left = maps(&cluster, "leave");
    within("deletion", left.delete(MAP, &DeleteParams::default()))
        .await
        .unwrap();
    let stays = maps(&cluster, "leave-not");
    within("deletion", stays.delete(MAP, &DeleteParams::default()))
        .await
        .unwrap();
    until_says(&cluster, "leave-not", &roots).await;
    assert_eq!(map(&cluster, "leave").await, None);
    assert_eq!(server.metric("mesh_ca_object_failures"), 0.0);
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_cluster_trust_bundle_takes_the_place_of_config_maps() {
    let cluster = cluster().await;
    namespace(&cluster, "bundle", json!({ "bundle": "on" })).await;
    let flags = [
        "--cluster-trust-bundle=true",
        "--configmap-namespace-selector=bundle=on",
    ];
    let home = cluster.namespace("mesh").await;
    let kubeconfig = cluster
        .install_manifest("ca-with-options.yaml", &home)
        .await;
    let server = Server::start(&kubeconfig, &home, &flags).await;
    let kind = GroupVersionKind::gvk("certificates.k8s.io", "v1beta1", "ClusterTrustBundle");
    let kind = ApiResource::from_gvk_with_plural(&kind, "clustertrustbundles");
    let bundles: Api<DynamicObject> = Api::all_with(cluster.admin(), &kind);
    let name = "istio.io:istiod-ca:root-cert";
    let until_says = async |roots: &str| {
        let attempt = async || {
            let found = within("bundle", bundles.get_opt(name)).await.unwrap();
            let spec = found
                .map(|found| found.data["spec"].clone())
                .unwrap_or_default();
            let wanted = json!({ "signerName": "istio.io/istiod-ca", "trustBundle": roots });
            if spec == wanted {
                Ok(())
            } else {
                Err(format!("{spec}\n{}", server.log()))
            }
        };
        eventually("bundle", attempt).await;
    };
    until_says(&server.root_pem()).await;
    let patch = Patch::Merge(
        json!({ "spec": { "trustBundle": ca_core::testing::TestCa::new("x").root_pem() } }),
    );
    within("edit", bundles.patch(name, &PatchParams::default(), &patch))
        .await
        .unwrap();
    until_says(&server.root_pem()).await;
    within("deletion", bundles.delete(name, &DeleteParams::default()))
        .await
        .unwrap();
    until_says(&server.root_pem()).await;
    prepare_next_root(&server).await;
    until_says(&server.root_pem()).await;
    assert_eq!(map(&cluster, "bundle").await, None);
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn webhook_configurations_by_name_and_label_have_the_roots_and_nothing_else_of_them_changes()
{
    let cluster = cluster().await;
    let webhook = |name: &str| {
        json!({
            "name": name,
            "clientConfig": { "service": { "namespace": "mesh", "name": "istiod", "path": "/inject" } },
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Ignore",
            // Nothing of these tests is asked about.
            "namespaceSelector": { "matchLabels": { "hook": "never" } },
        })
    };
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(cluster.admin());
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(cluster.admin());
    for (name, labels) in [("hook-named", json!({})), ("hook-other", json!({}))] {
        let made = from_json(json!({
            "metadata": { "name": name, "labels": labels },
            "webhooks": [webhook("a.hook.example.com"), webhook("b.hook.example.com")],
        }));
        within("webhook", mutating.create(&PostParams::default(), &made))
            .await
            .unwrap();
    }
    let made = from_json(json!({
        "metadata": { "name": "hook-labelled", "labels": { "hook": "blue" } },
        "webhooks": [webhook("c.hook.example.com")],
    }));
    within("webhook", validating.create(&PostParams::default(), &made))
        .await
        .unwrap();
    let namespace = cluster.namespace("mesh").await;
    let kubeconfig = cluster
        .install_manifest("ca-with-options.yaml", &namespace)
        .await;
    let flags = [
        "--publish-roots=false",
        "--mutating-webhook-config=hook-named",
        "--webhook-config-selector=hook=blue",
    ];
    let server = Server::start(&kubeconfig, &namespace, &flags).await;
    let until_says = async |roots: &str| {
        let attempt = async || {
            let named = within("webhook", mutating.get("hook-named")).await.unwrap();
            let labelled = within("webhook", validating.get("hook-labelled"))
                .await
                .unwrap();
            let named = named
                .webhooks
                .into_iter()
                .flatten()
                .map(|hook| hook.client_config);
            let labelled = labelled
                .webhooks
                .into_iter()
                .flatten()
                .map(|hook| hook.client_config);
            let all: Vec<_> = named.chain(labelled).collect();
            let is_right = all.iter().all(|config| {
                config.service.is_some()
                    && config
                        .ca_bundle
                        .as_ref()
                        .is_some_and(|bundle| bundle.0 == roots.as_bytes())
            });
            match is_right && all.len() == 3 {
                true => Ok(()),
                false => Err(format!("{all:?}\n{}", server.log())),
            }
        };
        eventually("caBundle", attempt).await;
    };
    until_says(&server.root_pem()).await;
    let other = within("webhook", mutating.get("hook-other")).await.unwrap();
    assert!(
        other
            .webhooks
            .unwrap()
            .iter()
            .all(|hook| hook.client_config.ca_bundle.is_none())
    );

    // As a Helm upgrade would.
    let made =
        json!({ "webhooks": [webhook("a.hook.example.com"), webhook("d.hook.example.com")] });
    let patch = Patch::Merge(&made);
    within(
        "edit",
        mutating.patch("hook-named", &PatchParams::default(), &patch),
    )
    .await
    .unwrap();
    until_says(&server.root_pem()).await;
    prepare_next_root(&server).await;
    until_says(&server.root_pem()).await;
    assert!(server.metric("webhook_patch_attempts_total") >= 5.0);
    assert_eq!(server.metric("webhook_patch_failures_total"), 0.0);
    let named = within("webhook", mutating.get("hook-named")).await.unwrap();
    let policies = named.webhooks.unwrap();
    assert!(
        policies
            .iter()
            .all(|hook| hook.failure_policy.as_deref() == Some("Ignore"))
    );
}
