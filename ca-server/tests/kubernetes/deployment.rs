//! What we ship to run the server: that the API server takes it, and that its parts fit together.

use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::cluster::{Cluster, from_json};
use crate::deadline::within;
use crate::manifests::{self, title};

/// The manifests in the checkout, and whatever else was rendered for this run.
fn files() -> Vec<PathBuf> {
    let folders = [Some(manifests::shipped()), manifests::rendered()];
    let mut files = Vec::new();
    for folder in folders.into_iter().flatten() {
        for entry in std::fs::read_dir(folder).unwrap() {
            files.push(entry.unwrap().path());
        }
    }
    assert!(!files.is_empty());
    files
}

fn of_kind<'a>(objects: &'a [DynamicObject], kind: &str) -> Vec<&'a DynamicObject> {
    let is_it = |object: &&DynamicObject| {
        let types = object.types.as_ref();
        types.is_some_and(|types| types.kind == kind)
    };
    objects.iter().filter(is_it).collect()
}

fn deployment(file: &Path, objects: &[DynamicObject]) -> DynamicObject {
    let [deployment] = of_kind(objects, "Deployment")[..] else {
        panic!("{}: not one deployment", file.display());
    };
    deployment.clone()
}

/// What `kubectl apply --server-side --dry-run=server` asks.
async fn try_out(client: &Client, object: &DynamicObject) -> kube::Result<DynamicObject> {
    let params = PatchParams::apply("tests").force().dry_run();
    manifests::patch(client, object, &params.validation_strict()).await
}

/// Where the manifests put things.
async fn prepared() -> (std::sync::Arc<Cluster>, Client) {
    let cluster = Cluster::shared().await;
    let client = cluster.admin();
    for name in ["istio-system", "cert-manager"] {
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        manifests::apply(&client, &from_json(namespace)).await;
    }
    (cluster, client)
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn the_api_server_takes_every_manifest() {
    let (_cluster, client) = prepared().await;
    for file in files() {
        for object in manifests::read(&file) {
            if let Err(error) = try_out(&client, &object).await {
                panic!("{}: {}: {error}", file.display(), title(&object));
            }
        }
    }
}

/// Otherwise the test above would prove nothing.
#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_manifest_with_a_fault_is_not_taken() {
    let (_cluster, client) = prepared().await;
    let file = manifests::shipped().join("ca.yaml");
    let objects = manifests::read(&file);
    let faults: [(&str, &str, Value); 7] = [
        ("Deployment", "/spec/replica", json!(2)),
        ("Deployment", "/spec/replicas", json!("two")),
        ("Deployment", "/spec/selector/matchLabels/other", json!("x")),
        (
            "Deployment",
            "/spec/template/spec/containers/0/readinessProbe/httpGet/port",
            json!("no such name, and too long"),
        ),
        ("Service", "/spec/ports/0/port", json!(70000)),
        ("ClusterRole", "/rules/0/verb", json!(["create"])),
        ("NetworkPolicy", "/spec/policyTypes/0", json!("Inbound")),
    ];
    for (kind, place, value) in faults {
        let mut object = of_kind(&objects, kind)[0].clone();
        try_out(&client, &object).await.unwrap();
        let (parent, name) = place.rsplit_once('/').unwrap();
        let parent = object.data.pointer_mut(parent).unwrap();
        match parent {
            Value::Array(list) => list[name.parse::<usize>().unwrap()] = value,
            parent => parent[name] = value,
        }
        assert!(try_out(&client, &object).await.is_err(), "{kind} {place}");
    }
}

/// The strictest of Kubernetes' standards for pods.
#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn its_pods_are_let_into_a_restricted_namespace() {
    let (cluster, client) = prepared().await;
    let namespace = cluster.namespace("restricted").await;
    let label = json!({
        "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } },
    });
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let params = PatchParams::default();
    namespaces
        .patch(&namespace, &params, &Patch::Merge(&label))
        .await
        .unwrap();
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let create = async |template: &Value| {
        let mut template = template.clone();
        template["metadata"]["generateName"] = "ca-".into();
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let pod = from_json(template);
        within("pod", pods.create(&params, &pod)).await
    };
    for file in files() {
        let deployment = deployment(&file, &manifests::read(&file));
        let mut template = deployment.data["spec"]["template"].clone();
        create(&template).await.unwrap();
        template["spec"]["containers"][0]["securityContext"] = json!({});
        let refused = create(&template).await.unwrap_err();
        assert!(refused.to_string().contains("restricted"), "{refused}");
    }
}

/// The program with the flags and variables of the container, which says itself whether it would start.
#[test]
#[ignore = "reads what was rendered: cargo xtask interop kubernetes"]
fn the_program_knows_every_flag_of_every_deployment() {
    for file in files() {
        let deployment = deployment(&file, &manifests::read(&file));
        let container = &deployment.data["spec"]["template"]["spec"]["containers"][0];
        let flags = strings(&container["args"]);
        assert!(flags.iter().any(|flag| flag == "--kubernetes"), "{flags:?}");
        let folder = tempfile::tempdir().unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_ca-server"));
        program.current_dir(&folder).args(&flags).arg("config");
        for variable in container["env"].as_array().unwrap() {
            let value = variable["value"].as_str().unwrap_or("istio-system");
            program.env(variable["name"].as_str().unwrap(), value);
        }
        let output = program.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        // What is mounted into the pod is not here: that is all that may be wrong.
        let misses_a_mount = errors.contains(": /etc/mesh-ca/") && errors.ends_with(": missing\n");
        assert!(
            output.status.success() || misses_a_mount,
            "{}: {errors}",
            file.display()
        );
    }
}

/// Names by which one object means another, which no API server looks at.
#[test]
#[ignore = "reads what was rendered: cargo xtask interop kubernetes"]
fn what_refers_to_each_other_fits() {
    for file in files() {
        let objects = manifests::read(&file);
        let deployment = deployment(&file, &objects);
        let template = &deployment.data["spec"]["template"];
        let (labels, pod) = (&template["metadata"]["labels"], &template["spec"]);
        let container = &pod["containers"][0];
        let ports: Vec<_> = list(&container["ports"])
            .iter()
            .map(|port| port["name"].clone())
            .collect();
        for probe in ["livenessProbe", "readinessProbe"] {
            assert!(ports.contains(&container[probe]["httpGet"]["port"]));
        }
        for service in of_kind(&objects, "Service") {
            assert_selects(&service.data["spec"]["selector"], labels);
            for port in list(&service.data["spec"]["ports"]) {
                assert!(ports.contains(&port["targetPort"]), "{port}");
            }
        }
        for kind in ["NetworkPolicy", "PodDisruptionBudget"] {
            for object in of_kind(&objects, kind) {
                let spec = &object.data["spec"];
                let selector = spec.get("podSelector").unwrap_or(&spec["selector"]);
                assert_selects(&selector["matchLabels"], labels);
                for port in spec
                    .pointer("/ingress/0/ports")
                    .map(list)
                    .unwrap_or_default()
                {
                    assert!(ports.contains(&port["port"]), "{port}");
                }
            }
        }
        let services = of_kind(&objects, "Service");
        for monitor in of_kind(&objects, "ServiceMonitor") {
            let wanted = &monitor.data["spec"]["selector"]["matchLabels"];
            let selected = services.iter().filter(|service| {
                let labels = json!(service.labels());
                wanted
                    .as_object()
                    .unwrap()
                    .iter()
                    .all(|(key, value)| labels[key] == *value)
            });
            let [service] = selected.collect::<Vec<_>>()[..] else {
                panic!("{}: not one service", file.display());
            };
            let port = &monitor.data["spec"]["endpoints"][0]["port"];
            assert!(
                list(&service.data["spec"]["ports"])
                    .iter()
                    .any(|it| it["name"] == *port)
            );
        }
        let account = &pod["serviceAccountName"];
        for kind in ["RoleBinding", "ClusterRoleBinding"] {
            for binding in of_kind(&objects, kind) {
                assert_eq!(binding.data["subjects"][0]["name"], *account);
                let role = binding.data["roleRef"]["name"].as_str().unwrap();
                let roles = of_kind(&objects, kind.strip_suffix("Binding").unwrap());
                assert!(roles.iter().any(|it| it.name_any() == role), "{role}");
            }
        }
    }
}

fn assert_selects(selector: &Value, labels: &Value) {
    for (key, value) in selector.as_object().unwrap() {
        assert_eq!(labels[key], *value, "{key}");
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().unwrap().clone()
}

fn strings(value: &Value) -> Vec<String> {
    from_json(value.clone())
}
