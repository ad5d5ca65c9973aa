//! What the service account that we ship may do, and above all what it may not.

use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tonic::Code;

use crate::cluster::{Cluster, from_json};
use crate::deadline::within;
use crate::server::{Ask, Server};

async fn review(client: &Client, token: &str, audiences: &[&str]) -> TokenReview {
    let review: TokenReview = from_json(json!({
        "metadata": {},
        "spec": { "token": token, "audiences": audiences },
    }));
    let reviews = Api::all(client.clone());
    within("review", reviews.create(&PostParams::default(), &review))
        .await
        .unwrap()
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_pods_token_is_reviewed_and_other_secrets_are_closed() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("mesh").await;
    let client = cluster.client(&cluster.install(&namespace).await).await;
    let workload = cluster.workload(&namespace, "cart", "node-1").await;
    let token = cluster.token(&workload, &["istio-ca"]).await;

    let status = review(&client, &token, &["istio-ca"]).await.status.unwrap();
    assert_eq!(status.authenticated, Some(true), "{status:?}");
    assert_eq!(status.audiences.unwrap(), ["istio-ca"]);
    let user = status.user.unwrap();
    let name = format!("system:serviceaccount:{namespace}:cart");
    assert_eq!(user.username, Some(name));
    let extra = user.extra.unwrap();
    assert_eq!(
        extra["authentication.kubernetes.io/pod-uid"],
        [workload.uid]
    );
    assert_eq!(extra["authentication.kubernetes.io/node-name"], ["node-1"]);
    let status = review(&client, &token, &["other"]).await.status.unwrap();
    assert_ne!(status.authenticated, Some(true), "{status:?}");

    for elsewhere in ["default", "kube-system"] {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), elsewhere);
        let refused = within("answer", secrets.get("any")).await.unwrap_err();
        let kube::Error::Api(status) = refused else {
            panic!("{refused}");
        };
        assert_eq!(status.code, 403, "{status:?}");
    }
}

/// The keys of the cluster's tokens, as they are found where nothing is known but the issuer.
#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn the_issuers_keys_are_open_to_every_service_account() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("mesh").await;
    let client = cluster.client(&cluster.install(&namespace).await).await;
    let get = async |path: &str| -> Value {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        within(path, client.request(request)).await.unwrap()
    };
    let discovered = get("/.well-known/openid-configuration").await;
    assert_eq!(discovered["issuer"], cluster.url());
    assert_eq!(
        discovered["jwks_uri"],
        format!("{}/openid/v1/jwks", cluster.url())
    );
    let keys = get("/openid/v1/jwks").await;
    assert_eq!(keys["keys"][0]["kty"], "RSA");
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_server_in_the_cluster_is_ready_and_refuses_whoever_has_no_token() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("mesh").await;
    let kubeconfig = cluster.install(&namespace).await;
    let server = Server::start(&kubeconfig, &namespace, &[]).await;
    server.until_ready().await;
    let refused = server.sign(Ask::new("junk")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
}
