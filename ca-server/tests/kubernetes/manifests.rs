//! The manifests that we ship, as the API server gets them.

use std::path::{Path, PathBuf};

use kube::api::{Patch, PatchParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _, discovery};
use serde_json::Value;

use crate::deadline::within;

/// The folder of what we ship.
pub(crate) fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests")
}

/// The folder of all that the chart is tried with, if it was rendered for this run.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge: whoever runs the tests says where more manifests are"
)]
pub(crate) fn rendered() -> Option<PathBuf> {
    std::env::var_os("RENDERED_MANIFESTS").map(PathBuf::from)
}

/// A file by its name, of what we ship or else of what was rendered.
fn find(name: &str) -> PathBuf {
    let shipped = shipped().join(name);
    match rendered() {
        Some(folder) if !shipped.exists() => folder.join(name),
        _ => shipped,
    }
}

/// The objects of one file.
pub(crate) fn read(path: &Path) -> Vec<DynamicObject> {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Server-side apply, as `kubectl apply --server-side` does it.
pub(crate) async fn apply(client: &Client, object: &DynamicObject) {
    patch(client, object, &PatchParams::apply("tests").force())
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", title(object)));
}

/// What the API server makes of it, with everything filled in.
pub(crate) async fn patch(
    client: &Client,
    object: &DynamicObject,
    params: &PatchParams,
) -> kube::Result<DynamicObject> {
    let types = object.types.as_ref().expect("apiVersion and kind");
    let kind = GroupVersionKind::try_from(types).unwrap();
    let title = title(object);
    let (resource, capabilities) = within(&title, discovery::pinned_kind(client, &kind)).await?;
    let api: Api<DynamicObject> = match capabilities.scope {
        discovery::Scope::Cluster => Api::all_with(client.clone(), &resource),
        discovery::Scope::Namespaced => {
            let namespace = object.namespace().expect("a namespace");
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
    };
    within(
        &title,
        api.patch(&object.name_any(), params, &Patch::Apply(object)),
    )
    .await
}

/// What it is called in a message.
pub(crate) fn title(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("", |types| &types.kind);
    format!("{kind} {}", object.name_any())
}

/// What a shipped file says of access, as somebody with another namespace would install it: service account, roles, bindings. What is
/// of the whole cluster is named after the namespace, so that several CAs have room in one cluster.
pub(crate) fn access(file: &str, namespace: &str) -> Vec<DynamicObject> {
    const KINDS: [&str; 5] = [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
    ];
    let mut objects = read(&find(file));
    objects.retain(|object| {
        let types = object.types.as_ref().expect("apiVersion and kind");
        KINDS.contains(&types.kind.as_str())
    });
    for object in &mut objects {
        let of_the_cluster = object.metadata.namespace.is_none();
        if of_the_cluster {
            object.metadata.name = Some(format!("{}-{namespace}", object.name_any()));
        } else {
            object.metadata.namespace = Some(namespace.into());
        }
        let subjects = object.data.get_mut("subjects");
        for subject in subjects.and_then(Value::as_array_mut).into_iter().flatten() {
            subject["namespace"] = namespace.into();
        }
        if let Some(role) = object.data.get_mut("roleRef")
            && role["kind"] == "ClusterRole"
        {
            role["name"] = format!("{}-{namespace}", role["name"].as_str().unwrap()).into();
        }
    }
    objects
}
