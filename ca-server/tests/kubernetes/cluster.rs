//! A cluster of an API server and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::control_plane::{Assets, ControlPlane};
use crate::deadline::{eventually, within};
use crate::manifests;

/// One API server with its etcd: RBAC and Node authorization, an issuer of service account tokens, and no controllers.
pub(crate) struct Cluster {
    control_plane: ControlPlane,
    admin: Config,
    counter: AtomicUsize,
}

/// A pod that nobody runs, and what a token of it says.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) node: String,
}

impl Workload {
    /// Its name in the mesh.
    pub(crate) fn spiffe_id(&self) -> String {
        let (namespace, account) = (&self.namespace, &self.service_account);
        format!("spiffe://cluster.local/ns/{namespace}/sa/{account}")
    }
}

impl Cluster {
    /// The one that all tests share; the first of them starts it. Each test makes clients of its own, because each has a runtime of
    /// its own.
    pub(crate) async fn shared() -> Arc<Self> {
        static SHARED: OnceCell<Arc<Cluster>> = OnceCell::const_new();
        let cluster = SHARED.get_or_init(|| async { Arc::new(Self::start().await) });
        Arc::clone(cluster.await)
    }

    /// One for a test that stops it or fills it up.
    pub(crate) async fn start() -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("cluster-{}-{number}", std::process::id()));
        let control_plane = ControlPlane::start(Assets::find(), folder);
        let file = write_kubeconfig(&control_plane, "admin", &["system:masters"]);
        let admin = config(&file).await;
        let cluster = Self {
            control_plane,
            admin,
            counter: AtomicUsize::new(0),
        };
        cluster.until_ready().await;
        cluster.install_crds().await;
        cluster
    }

    /// May do everything.
    pub(crate) fn admin(&self) -> Client {
        Client::try_from(self.admin.clone()).unwrap()
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        self.control_plane.url()
    }

    /// A client that is whom such a file makes it.
    pub(crate) async fn client(&self, kubeconfig: &Path) -> Client {
        Client::try_from(config(kubeconfig).await).unwrap()
    }

    /// A fresh one. It is never deleted: nobody here finishes a deletion.
    pub(crate) async fn namespace(&self, prefix: &str) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{number}");
        let namespace: Namespace = from_json(json!({ "metadata": { "name": name } }));
        let api = Api::all(self.admin());
        within("namespace", api.create(&PostParams::default(), &namespace))
            .await
            .unwrap();
        name
    }

    /// Gives a CA in this namespace what the shipped manifest of CA mode gives it, and returns a kubeconfig with a token of its
    /// service account: what it may do there, it may do in a cluster.
    pub(crate) async fn install(&self, namespace: &str) -> PathBuf {
        self.install_manifest("ca.yaml", namespace).await
    }

    /// The same for any file in `deploy/manifests`, or that was rendered for this run: `ca-with-options.yaml` may also write ClusterTrustBundles and webhook
    /// configurations, and read the kubeconfigs of other clusters.
    pub(crate) async fn install_manifest(&self, file: &str, namespace: &str) -> PathBuf {
        let client = self.admin();
        let mut account = None;
        for object in manifests::access(file, namespace) {
            if object
                .types
                .as_ref()
                .is_some_and(|types| types.kind == "ServiceAccount")
            {
                account = Some(object.name_any());
            }
            manifests::apply(&client, &object).await;
        }
        let account = account.expect("a service account in the manifest");
        let token = self.request_token(namespace, &account, json!({})).await;
        let user = json!({ "token": token });
        let path = self
            .control_plane
            .folder
            .join(format!("{namespace}.kubeconfig"));
        write(&self.control_plane, &path, &user);
        path
    }

    /// A pod of this service account on this node, running as far as anybody can tell. What is missing is made: the node, the account.
    pub(crate) async fn workload(
        &self,
        namespace: &str,
        service_account: &str,
        node: &str,
    ) -> Workload {
        let client = self.admin();
        let nodes: Api<Node> = Api::all(client.clone());
        create_if_missing(&nodes, from_json(json!({ "metadata": { "name": node } }))).await;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let account = json!({ "metadata": { "name": service_account } });
        create_if_missing(&accounts, from_json(account)).await;
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let pod: Pod = from_json(json!({
            "metadata": { "generateName": format!("{service_account}-") },
            "spec": {
                "serviceAccountName": service_account,
                "nodeName": node,
                "containers": [{ "name": "app", "image": "app" }],
            },
        }));
        let pod = within("pod", pods.create(&PostParams::default(), &pod))
            .await
            .unwrap();
        let workload = Workload {
            namespace: namespace.into(),
            service_account: service_account.into(),
            pod: pod.name_any(),
            uid: pod.uid().unwrap(),
            node: node.into(),
        };
        self.set_phase(&workload, "Running").await;
        workload
    }

    /// As its kubelet would: `Running`, `Succeeded`, `Failed`.
    pub(crate) async fn set_phase(&self, workload: &Workload, phase: &str) {
        let pods: Api<Pod> = Api::namespaced(self.admin(), &workload.namespace);
        let status = json!({ "status": { "phase": phase } });
        let (params, patch) = (PatchParams::default(), Patch::Merge(&status));
        within("status", pods.patch_status(&workload.pod, &params, &patch))
            .await
            .unwrap();
    }

    /// What the kubelet would mount into the pod.
    pub(crate) async fn token(&self, workload: &Workload, audiences: &[&str]) -> String {
        let pod =
            json!({ "apiVersion": "v1", "kind": "Pod", "name": workload.pod, "uid": workload.uid });
        let spec = json!({ "audiences": audiences, "boundObjectRef": pod });
        self.request_token(&workload.namespace, &workload.service_account, spec)
            .await
    }

    /// A token of a service account with any `spec`; one without audiences is for the API server.
    pub(crate) async fn request_token(
        &self,
        namespace: &str,
        account: &str,
        spec: Value,
    ) -> String {
        let mut request = json!({ "spec": { "audiences": [] } });
        request["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let request: TokenRequest = from_json(request);
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin(), namespace);
        let params = PostParams::default();
        let made = within(
            "token",
            accounts.create_token_request(account, &params, &request),
        );
        made.await.unwrap().status.unwrap().token
    }

    /// etcd keeps its data.
    pub(crate) fn stop_api(&mut self) {
        self.control_plane.stop_api_server();
    }

    /// Starts it again, at the same address.
    pub(crate) async fn start_api(&mut self) {
        self.control_plane.start_api_server();
        self.until_ready().await;
    }

    async fn until_ready(&self) {
        let client = self.admin();
        let attempt = || async {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            match client.request_text(request).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error}\n{}", self.control_plane.last_words())),
            }
        };
        eventually("API server", attempt).await;
    }

    async fn install_crds(&self) {
        let client = self.admin();
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for path in self.control_plane.crds() {
            for definition in manifests::read(path) {
                manifests::apply(&client, &definition).await;
                let name = definition.name_any();
                let established = await_condition(definitions.clone(), &name, is_crd_established());
                within(&name, established).await.unwrap();
            }
        }
    }
}

/// An object from what its YAML would say.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

async fn create_if_missing<K>(api: &Api<K>, object: K)
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    match within("object", api.create(&PostParams::default(), &object)).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        outcome => {
            outcome.unwrap();
        }
    }
}

fn write_kubeconfig(control_plane: &ControlPlane, user: &str, groups: &[&str]) -> PathBuf {
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let path = control_plane
        .folder
        .join(format!("client-{number}.kubeconfig"));
    let (certificate, key) = control_plane.client_certificate(user, groups);
    let user = json!({
        "client-certificate-data": STANDARD.encode(certificate),
        "client-key-data": STANDARD.encode(key),
    });
    write(control_plane, &path, &user);
    path
}

/// JSON is YAML too.
fn write(control_plane: &ControlPlane, path: &Path, user: &Value) {
    let cluster = json!({
        "server": control_plane.url(),
        "certificate-authority-data": STANDARD.encode(&control_plane.ca_pem),
    });
    let file = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "here", "cluster": cluster }],
        "users": [{ "name": "me", "user": user }],
        "contexts": [{ "name": "me", "context": { "cluster": "here", "user": "me" } }],
        "current-context": "me",
    });
    std::fs::write(path, file.to_string()).unwrap();
}

async fn config(kubeconfig: &Path) -> Config {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap()
}
