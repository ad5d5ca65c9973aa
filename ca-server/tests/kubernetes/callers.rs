//! Who is believed: tokens of pods that are there, of clusters that are known, and node proxies for what is on their node.

use std::time::{Duration, Instant};

use ca_core::{Certificate, KeyKind, PrivateKey, create_csr_pem};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::cluster::{Cluster, Workload, from_json};
use crate::deadline::{eventually, within};
use crate::server::{Ask, Server};

/// What Istio's agents ask for.
const AUDIENCE: &str = "istio-ca";

/// A server in a namespace of its own, with the rights that it ships with.
async fn server(cluster: &Cluster, flags: &[&str]) -> Server {
    let namespace = cluster.namespace("mesh").await;
    let kubeconfig = cluster.install(&namespace).await;
    let server = Server::start(&kubeconfig, &namespace, flags).await;
    server.until_ready().await;
    until_known(&server, "Kubernetes").await;
    server
}

/// Until the pods of a cluster are known, where they are watched.
async fn until_known(server: &Server, cluster: &str) {
    let attempt = async || {
        let report = report(server);
        let clusters = report["caller_clusters"].as_array().unwrap();
        let known = clusters.iter().find(|each| each["id"] == cluster);
        match known {
            Some(each) if each["index"].is_null() || !each["index"]["age_seconds"].is_null() => {
                Ok(())
            }
            _ => Err(report["caller_clusters"].to_string()),
        }
    };
    eventually("pods of the cluster", attempt).await;
}

fn report(server: &Server) -> Value {
    serde_json::from_str(&server.get("/debug").1).unwrap()
}

/// The names in the certificate.
fn names(elements: &[String]) -> Vec<String> {
    let leaf = Certificate::all_from_pem(elements[0].as_bytes()).unwrap();
    leaf[0].names().iter().map(ToString::to_string).collect()
}

fn assert_refused(outcome: Result<Vec<String>, Status>) {
    let status = outcome.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
}

/// Asks until the refusal, and tells how long it took. The connection is there from before.
async fn until_refused(server: &Server, token: &str) -> Duration {
    let (channel, started) = (server.connect().await, Instant::now());
    let attempt = async || match Ask::new(token).send(channel.clone()).await {
        Err(status) if status.code() == Code::Unauthenticated => Ok(started.elapsed()),
        outcome => Err(format!("{outcome:?}")),
    };
    eventually("refusal", attempt).await
}

/// As its kubelet does when the containers have ended.
async fn delete_pod(cluster: &Cluster, workload: &Workload) {
    let pods: Api<Pod> = Api::namespaced(cluster.admin(), &workload.namespace);
    let now = DeleteParams::default().grace_period(0);
    within("deletion", pods.delete(&workload.pod, &now))
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn tokens_of_pods_are_judged_without_asking_the_api_server() {
    let cluster = Cluster::shared().await;
    let server = server(&cluster, &[]).await;
    let namespace = cluster.namespace("shop").await;
    let cart = cluster.workload(&namespace, "cart", "node-1").await;
    let token = cluster.token(&cart, &[AUDIENCE]).await;
    let elements = server.sign(Ask::new(&token)).await.unwrap();
    assert_eq!(names(&elements), [cart.spiffe_id()]);
    // By its name too, and not under another.
    let named = Ask::new(&token).header("clusterid", "Kubernetes");
    server.sign(named).await.unwrap();
    let foreign = Ask::new(&token).header("clusterid", "elsewhere");
    assert_refused(server.sign(foreign).await);
    let line = r#"cluster \"elsewhere\" is not known (this is Kubernetes; others: none)"#;
    server.until_logged(line).await;

    // A token that is for somebody else, one without a pod, and one that is none.
    let other = cluster.token(&cart, &["vault"]).await;
    assert_refused(server.sign(Ask::new(&other)).await);
    let spec = json!({ "audiences": [AUDIENCE] });
    let plain = cluster.request_token(&namespace, "cart", spec).await;
    let elements = server.sign(Ask::new(&plain)).await.unwrap();
    assert_eq!(names(&elements), [cart.spiffe_id()]);
    assert_refused(server.sign(Ask::new("x")).await);
    assert_eq!(server.metric("mesh_ca_token_reviews"), 0.0);
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn the_api_server_judges_every_token_where_that_is_wanted() {
    let cluster = Cluster::shared().await;
    let flags = ["--kubernetes-tokens", "review"];
    let server = server(&cluster, &flags).await;
    let namespace = cluster.namespace("shop").await;
    let cart = cluster.workload(&namespace, "cart", "node-1").await;
    let token = cluster.token(&cart, &[AUDIENCE]).await;
    let channel = server.connect().await;
    for _ in 0..3 {
        let elements = Ask::new(&token).send(channel.clone()).await.unwrap();
        assert_eq!(names(&elements), [cart.spiffe_id()]);
    }
    let counts = || {
        let reviews = &report(&server)["caller_clusters"][0]["reviews"];
        ["asked", "refused", "failed"].map(|count| reviews[count].as_u64().unwrap())
    };
    assert_eq!(counts(), [1, 0, 0]);

    // What is not for us is not asked about; a signature that is not the cluster's is.
    let other = cluster.token(&cart, &["vault"]).await;
    assert_refused(server.sign(Ask::new(&other)).await);
    assert_eq!(counts(), [1, 0, 0]);
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    assert_refused(server.sign(Ask::new(&forged)).await);
    assert_eq!(counts(), [2, 1, 0]);

    // A pod that is deleted is good for as long as the API server, and we, remember.
    delete_pod(&cluster, &cart).await;
    let took = until_refused(&server, &token).await;
    assert!(took < Duration::from_secs(25), "{took:?}");
    println!("by review, a deleted pod was refused after {took:?}");
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn what_is_deleted_finished_or_replaced_is_refused_within_moments() {
    let cluster = Cluster::shared().await;
    let server = server(&cluster, &[]).await;
    let namespace = cluster.namespace("shop").await;
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.admin(), &namespace);
    let known = async |account: &str| {
        let workload = cluster.workload(&namespace, account, "node-1").await;
        let token = cluster.token(&workload, &[AUDIENCE]).await;
        server.sign(Ask::new(&token)).await.unwrap();
        (workload, token)
    };
    let mut slowest = Duration::ZERO;
    let mut refused = async |token: &str, reason: &str| {
        let took = until_refused(&server, token).await;
        server.until_logged(reason).await;
        // Nothing but the watch: the bound for one that is silent is a minute.
        assert!(took < Duration::from_secs(5), "{reason}: {took:?}");
        slowest = slowest.max(took);
    };

    let (deleted, token) = known("deleted").await;
    delete_pod(&cluster, &deleted).await;
    refused(&token, "its pod has been deleted").await;

    let (failed, token) = known("failed").await;
    cluster.set_phase(&failed, "Failed").await;
    refused(&token, "its pod has finished").await;

    let (_, token) = known("gone").await;
    let params = DeleteParams::default();
    within("deletion", accounts.delete("gone", &params))
        .await
        .unwrap();
    refused(&token, "its service account has been deleted").await;

    // Another pod of the same name, with a token of its own, and then the account too.
    let (first, old) = known("stateful").await;
    delete_pod(&cluster, &first).await;
    let second = recreate(&cluster, &first).await;
    let new = cluster.token(&second, &[AUDIENCE]).await;
    server.sign(Ask::new(&new)).await.unwrap();
    refused(&old, "its pod has been deleted").await;
    within("deletion", accounts.delete("stateful", &params))
        .await
        .unwrap();
    let account = from_json(json!({ "metadata": { "name": "stateful" } }));
    within("account", accounts.create(&PostParams::default(), &account))
        .await
        .unwrap();
    refused(&new, "its service account has been deleted").await;
    let newest = cluster.token(&second, &[AUDIENCE]).await;
    server.sign(Ask::new(&newest)).await.unwrap();
    println!("the slowest refusal took {slowest:?}");
}

/// A pod of the same name.
async fn recreate(cluster: &Cluster, before: &Workload) -> Workload {
    let pods: Api<Pod> = Api::namespaced(cluster.admin(), &before.namespace);
    let pod: Pod = from_json(json!({
        "metadata": { "name": before.pod },
        "spec": {
            "serviceAccountName": before.service_account,
            "nodeName": before.node,
            "containers": [{ "name": "app", "image": "app" }],
        },
    }));
    let pod = within("pod", pods.create(&PostParams::default(), &pod))
        .await
        .unwrap();
    Workload {
        uid: pod.metadata.uid.unwrap(),
        ..before.clone()
    }
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn other_clusters_come_change_and_go_while_the_server_runs() {
    let (cluster, other) = (Cluster::shared().await, Cluster::start().await);
    let namespace = cluster.namespace("mesh").await;
    let kubeconfig = cluster.install(&namespace).await;
    let secrets: Api<Secret> = Api::namespaced(cluster.admin(), &namespace);
    let server = Server::start(&kubeconfig, &namespace, &["--remote-clusters"]).await;
    server.until_ready().await;
    // Without the right to see them, it says so and serves its own cluster.
    server
        .until_logged("Secrets of remote clusters cannot be watched")
        .await;
    let own = cluster.workload(&namespace, "own", "node-1").await;
    let own = cluster.token(&own, &[AUDIENCE]).await;
    server.sign(Ask::new(&own)).await.unwrap();
    // As who turns the value on in the chart.
    cluster
        .install_manifest("ca-with-options.yaml", &namespace)
        .await;
    server
        .until_logged("Secrets of remote clusters are watched again")
        .await;

    let far = other.namespace("far").await;
    let cart = other.workload(&far, "cart", "node-1").await;
    let token = other.token(&cart, &[AUDIENCE]).await;
    let in_west = |token| Ask::new(token).header("clusterid", "west");
    assert_refused(server.sign(in_west(&token)).await);

    let file = other.install("default").await;
    let content = std::fs::read_to_string(file).unwrap();
    let broken = content.replace("\"token\"", "\"exec\":{\"command\":\"sh\"},\"token\"");
    assert_ne!(broken, content);
    create_secret(
        &secrets,
        "west",
        &json!({ "west": content, "bad": broken, "Kubernetes": content }),
    )
    .await;
    until_known(&server, "west").await;
    let elements = server.sign(in_west(&token)).await.unwrap();
    assert_eq!(names(&elements), [cart.spiffe_id()]);
    // Each cluster judges its own tokens and no others.
    assert_refused(server.sign(Ask::new(&token)).await);
    assert_refused(server.sign(in_west(&own)).await);
    assert_refused(
        server
            .sign(Ask::new(&token).header("clusterid", "bad"))
            .await,
    );
    let failures = || {
        let report = report(&server);
        let remote = report["remote_clusters"].as_array().unwrap().clone();
        let failure = move |id: &str| {
            let found = remote.iter().find(|each| each["id"] == id);
            found.map(|each| each["last_error"].as_str().unwrap_or("none").to_owned())
        };
        ["west", "bad", "Kubernetes"].map(failure)
    };
    let expected = [
        "none",
        "kubeconfig: exec: it would run a program",
        "this is the name of the cluster that we are in",
    ];
    assert_eq!(failures(), expected.map(|text| Some(text.to_owned())));

    // A second Secret of the same name waits until the first is gone.
    create_secret(&secrets, "west-2", &json!({ "west": content })).await;
    server
        .until_logged("Secret west has a cluster of this name too")
        .await;
    let params = DeleteParams::default();
    within("deletion", secrets.delete("west", &params))
        .await
        .unwrap();
    let attempt = async || match failures() {
        [Some(west), None, None] if west == "none" => Ok(()),
        others => Err(format!("{others:?}")),
    };
    eventually("the second Secret", attempt).await;
    server.sign(in_west(&token)).await.unwrap();
    within("deletion", secrets.delete("west-2", &params))
        .await
        .unwrap();
    let channel = server.connect().await;
    let attempt = async || match in_west(&token).send(channel.clone()).await {
        Err(status) if status.code() == Code::Unauthenticated => Ok(()),
        outcome => Err(format!("{outcome:?}")),
    };
    eventually("removal", attempt).await;
    server.sign(Ask::new(&own)).await.unwrap();
}

async fn create_secret(secrets: &Api<Secret>, name: &str, data: &Value) {
    let labels = json!({ "istio/multiCluster": "true" });
    let secret =
        from_json(json!({ "metadata": { "name": name, "labels": labels }, "stringData": data }));
    within("Secret", secrets.create(&PostParams::default(), &secret))
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_node_proxy_gets_the_names_on_its_node_and_no_others() {
    let cluster = Cluster::shared().await;
    let system = cluster.namespace("system").await;
    let trusted = format!("{system}/ztunnel");
    let server = server(&cluster, &["--ca-trusted-node-accounts", &trusted]).await;
    let namespace = cluster.namespace("shop").await;
    let here = format!("{namespace}-1");
    let proxy = cluster.workload(&system, "ztunnel", &here).await;
    let cart = cluster.workload(&namespace, "cart", &here).await;
    let there = format!("{namespace}-2");
    let gate = cluster.workload(&namespace, "gate", &there).await;
    let token = cluster.token(&proxy, &[AUDIENCE]).await;
    let channel = server.connect().await;
    let ask = async |token: &str, wanted: &str| {
        let ask = Ask::new(token).metadata("ImpersonatedIdentity", wanted);
        ask.send(channel.clone()).await
    };
    let granted = async |token: &str, wanted: &str| {
        // It is told to try again as long as its own pod is not known.
        let attempt = async || match ask(token, wanted).await {
            Ok(elements) => Ok(elements),
            Err(status) => Err(status.to_string()),
        };
        let elements = eventually(wanted, attempt).await;
        assert_eq!(names(&elements), [wanted]);
    };
    let refused = async |token: &str, wanted: &str, reason: &str| {
        assert_refused(ask(token, wanted).await);
        server.until_logged(reason).await;
    };

    granted(&token, &cart.spiffe_id()).await;
    // And its own, as everybody.
    let own = Ask::new(&token).send(channel.clone()).await.unwrap();
    assert_eq!(names(&own), [proxy.spiffe_id()]);

    refused(
        &token,
        &gate.spiffe_id(),
        &format!("no pod on its node {here} has that service account"),
    )
    .await;
    let nobody = format!("spiffe://cluster.local/ns/{namespace}/sa/nobody");
    refused(
        &token,
        &nobody,
        &format!("{nobody}, which no rule allows, and not as a node proxy: no pod"),
    )
    .await;
    let foreign = cart.spiffe_id().replace("cluster.local", "other.example");
    refused(&token, &foreign, "it is not in trust domain cluster.local").await;
    refused(
        &token,
        "spiffe://cluster.local/cart",
        "it is not of the form spiffe://<trust domain>/ns/",
    )
    .await;
    refused(
        &token,
        "cart",
        "asks on behalf of something that is no identity",
    )
    .await;

    // Who is not trusted, who shows no pod, and who says that it is elsewhere.
    let other = cluster.token(&cart, &[AUDIENCE]).await;
    let not_trusted = format!("service account {namespace}/cart is not a trusted node account");
    refused(&other, &proxy.spiffe_id(), &not_trusted).await;
    let spec = json!({ "audiences": [AUDIENCE] });
    let plain = cluster.request_token(&system, "ztunnel", spec).await;
    refused(
        &plain,
        &cart.spiffe_id(),
        "the caller does not show the token of a pod in a cluster",
    )
    .await;
    let elsewhere = Ask::new(&token)
        .metadata("ImpersonatedIdentity", &cart.spiffe_id())
        .header("clusterid", "elsewhere");
    assert_refused(elsewhere.send(channel.clone()).await);

    // Another pod of the account on the node; then it is over, and then the last one is.
    let second = cluster.workload(&namespace, "gate", &here).await;
    granted(&token, &gate.spiffe_id()).await;
    cluster.set_phase(&second, "Succeeded").await;
    let until_over = async |wanted: &str| {
        let attempt = async || match ask(&token, wanted).await {
            Err(status) if status.code() == Code::Unauthenticated => Ok(()),
            outcome => Err(format!("{outcome:?}")),
        };
        eventually("refusal", attempt).await;
    };
    until_over(&gate.spiffe_id()).await;
    cluster.set_phase(&cart, "Failed").await;
    until_over(&cart.spiffe_id()).await;

    // A proxy whose pod has been replaced, by the token of the one before.
    delete_pod(&cluster, &proxy).await;
    let next = recreate(&cluster, &proxy).await;
    let fresh = cluster.token(&next, &[AUDIENCE]).await;
    cluster.workload(&namespace, "late", &here).await;
    let late = format!("spiffe://cluster.local/ns/{namespace}/sa/late");
    granted(&fresh, &late).await;
    assert_refused(ask(&token, &late).await);
    server.until_logged("its pod has been deleted").await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn nobody_is_a_node_proxy_unless_that_is_said() {
    let cluster = Cluster::shared().await;
    let server = server(&cluster, &[]).await;
    let namespace = cluster.namespace("shop").await;
    let proxy = cluster.workload(&namespace, "ztunnel", "node-1").await;
    let cart = cluster.workload(&namespace, "cart", "node-1").await;
    let token = cluster.token(&proxy, &[AUDIENCE]).await;
    let ask = Ask::new(&token).metadata("ImpersonatedIdentity", &cart.spiffe_id());
    let status = server.sign(ask).await.unwrap_err();
    assert_eq!(
        status.message(),
        "request impersonation authentication failure"
    );
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn an_api_server_that_is_away_for_a_minute_stops_nobody_who_is_known() {
    let mut cluster = Cluster::start().await;
    let server = server(&cluster, &[]).await;
    let namespace = cluster.namespace("shop").await;
    let cart = cluster.workload(&namespace, "cart", "node-1").await;
    let token = cluster.token(&cart, &[AUDIENCE]).await;
    // Its pod is so new that it may have to be asked about.
    server.sign(Ask::new(&token)).await.unwrap();
    let newcomer = cluster.workload(&namespace, "newcomer", "node-1").await;
    let deleted = cluster.workload(&namespace, "deleted", "node-1").await;
    let gone = cluster.token(&deleted, &[AUDIENCE]).await;
    server.sign(Ask::new(&gone)).await.unwrap();
    delete_pod(&cluster, &deleted).await;
    until_refused(&server, &gone).await;

    cluster.stop_api();
    let away = Instant::now();
    let channel = server.connect().await;
    let (mut issued, mut slowest) = (0, Duration::ZERO);
    // Longer than the watch is believed without a doubt.
    while away.elapsed() < Duration::from_secs(75) {
        let asked = Instant::now();
        Ask::new(&token).send(channel.clone()).await.unwrap();
        slowest = slowest.max(asked.elapsed());
        // What was gone before stays so.
        let status = Ask::new(&gone).send(channel.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        issued += 1;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    println!("{issued} certificates while the API server was away, the slowest in {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let cluster_report = &report(&server)["caller_clusters"][0];
    assert!(
        !cluster_report["index"]["last_error"].is_null(),
        "{cluster_report}"
    );

    cluster.start_api().await;
    let fresh = cluster.token(&newcomer, &[AUDIENCE]).await;
    server.sign(Ask::new(&fresh)).await.unwrap();
    let attempt = async || match &report(&server)["caller_clusters"][0]["index"]["last_error"] {
        Value::Null => Ok(()),
        error => Err(error.to_string()),
    };
    eventually("recovery", attempt).await;
    delete_pod(&cluster, &cart).await;
    until_refused(&server, &token).await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_thousand_workloads_that_start_at_once_all_have_a_certificate() {
    const WORKLOADS: usize = 1000;
    let cluster = Cluster::shared().await;
    let server = server(&cluster, &[]).await;
    let namespace = cluster.namespace("fleet").await;
    let making = futures_util::stream::iter(0..WORKLOADS).map(async |number| {
        let account = format!("app-{number}");
        let workload = cluster.workload(&namespace, &account, "node-1").await;
        let token = cluster.token(&workload, &[AUDIENCE]).await;
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        (
            workload.spiffe_id(),
            token,
            create_csr_pem(&key, &[]).unwrap(),
        )
    });
    let all: Vec<_> = making.buffer_unordered(16).collect().await;
    let started = Instant::now();
    let asking = all.iter().map(async |(name, token, csr)| {
        let channel = server.connect().await;
        // As agents do when they are turned away.
        let attempt = async || match Ask::new(token).csr(csr).send(channel.clone()).await {
            Err(status) if status.code() == Code::ResourceExhausted => Err(status.to_string()),
            outcome => Ok(outcome.unwrap()),
        };
        let elements = eventually("certificate", attempt).await;
        assert_eq!(names(&elements), [name.as_str()]);
    });
    futures_util::future::join_all(asking).await;
    let (took, reviews) = (started.elapsed(), server.metric("mesh_ca_token_reviews"));
    println!("{WORKLOADS} workloads had their certificates after {took:?}, with {reviews} reviews");
}
