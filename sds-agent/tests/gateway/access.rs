//! What the gateway's account may do, and what happens without that.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::{Api, api::PostParams};

use crate::{
    deadline::within,
    stage::{Stage, assert_pair},
};

#[tokio::test]
#[ignore = "needs an API server: cargo xtask interop kubernetes"]
async fn the_documented_access_is_enough_and_no_more_than_that() {
    let stage = Stage::new().await;
    let other = stage.cluster.namespace("other").await;
    for (verb, namespace, wanted) in [
        ("list", &stage.namespace, true),
        ("watch", &stage.namespace, true),
        // A list shows everything; what is not used is not given all the same.
        ("get", &stage.namespace, false),
        ("create", &stage.namespace, false),
        ("update", &stage.namespace, false),
        ("delete", &stage.namespace, false),
        ("list", &other, false),
    ] {
        let allowed = may(&stage, verb, namespace).await;
        assert_eq!(allowed, wanted, "{verb} in {namespace}");
    }
    let (agent, pair) = (stage.agent(&[]), stage.pair());
    stage.write_tls("shop", &pair).await;
    let served = agent.subscribe(&["shop"]).await.accept().await;
    assert_pair(&served[0], "shop", &pair);
    agent.stop().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask interop kubernetes"]
async fn without_the_right_the_reason_is_shown_and_with_it_secrets_are_served() {
    let stage = Stage::new().await;
    stage.withdraw().await;
    let (agent, pair) = (stage.agent(&[]), stage.pair());
    stage.write_tls("shop", &pair).await;
    let mut stream = agent.subscribe(&["shop"]).await;
    let page = agent
        .becomes("/debug/sds", |_, page| page.contains("FAILED"))
        .await;
    let account = format!("system:serviceaccount:{}:gateway", stage.namespace);
    for part in [
        "not listed yet",
        "list of secrets",
        "forbidden",
        &account,
        "(403)",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let (_, metrics) = agent.get("/metrics").await;
    assert!(!metrics.contains("credential_watch_failures_total 0\n"));
    assert!(
        stream.is_silent().await,
        "not known is not the same as not there"
    );
    // The gateway's own certificate does not hang on it.
    assert_eq!(agent.get("/readyz").await.0, 200);
    assert_eq!(agent.subscribe(&["default"]).await.accept().await.len(), 1);

    stage.grant(&stage.namespace).await;
    assert_pair(&stream.accept().await[0], "shop", &pair);
    let well = |_, page: &str| !page.contains("FAILED");
    agent.becomes("/debug/sds", well).await;
    agent.stop().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask interop kubernetes"]
async fn another_namespace_needs_a_flag_and_a_right_and_answers_to_the_gateway_apis_names_alone() {
    let stage = Stage::new().await;
    let shop = Stage::new().await;
    let pair = shop.pair();
    shop.write_tls("tls", &pair).await;
    let name = format!("kubernetes-gateway://{}/tls", shop.namespace);
    let by_istio = format!("kubernetes://{}/tls", shop.namespace);

    // A right without a flag.
    stage.grant(&shop.namespace).await;
    let agent = stage.agent(&[]);
    let mut stream = agent.subscribe(&[&name]).await;
    let refused = |_, page: &str| page.contains("are not served to this gateway");
    agent.becomes("/debug/sds", refused).await;
    assert!(stream.is_silent().await);
    agent.stop().await;

    // Both.
    let agent = stage.agent(&["--gateway-namespace", &shop.namespace]);
    let served = agent.subscribe(&[&name]).await.accept().await;
    assert_pair(&served[0], &name, &pair);
    let mut stream = agent.subscribe(&[&by_istio]).await;
    let refused = |_, page: &str| page.contains("by the names of the Gateway API only");
    agent.becomes("/debug/sds", refused).await;
    assert!(stream.is_silent().await);
    agent.stop().await;

    // A flag without a right: the gateway's own namespace is none the worse.
    let other = stage.cluster.namespace("other").await;
    let agent = stage.agent(&["--gateway-namespace", &other]);
    let failed = format!("namespace {other}  not listed yet  FAILED");
    let own = format!("namespace {}  ", stage.namespace);
    agent
        .becomes("/debug/sds", |_, page| {
            page.contains(&failed) && page.contains(&format!("{own}0 secrets\n"))
        })
        .await;
    agent.stop().await;
}

async fn may(stage: &Stage, verb: &str, namespace: &str) -> bool {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{}:gateway", stage.namespace)),
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                verb: Some(verb.to_owned()),
                resource: Some("secrets".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(stage.cluster.admin());
    let params = PostParams::default();
    let asked = within("review", reviews.create(&params, &review)).await;
    asked.unwrap().status.unwrap().allowed
}
