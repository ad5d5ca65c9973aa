use std::time::Duration;

use time::OffsetDateTime;

use super::*;
use crate::authorizer::{Authorizer, AuthzError};
use crate::caller::{Caller, Identities, Pod, ServiceAccount, Source};
use crate::jwt::Audiences;
use crate::kubernetes::cluster::{ClusterConfig, Judgement};
use crate::kubernetes::node_proxy::{NodeProxies, NodeProxyRefusal};
use crate::kubernetes::scripted::{ApiServer, pod};
use crate::policy::Policy;
use crate::remote_keys::KeySchedule;

async fn cluster(id: &str, pods: Vec<serde_json::Value>) -> Cluster {
    let server = ApiServer::default();
    server.has(pods, Vec::new());
    let cluster = unsynced(id, &server);
    cluster.synced().await;
    cluster
}

fn unsynced(id: &str, server: &ApiServer) -> Cluster {
    let config = ClusterConfig {
        trust_domain: "cluster.local".parse().unwrap(),
        audiences: Audiences::default(),
        clock_skew: Duration::ZERO,
        judgement: Judgement::Review,
        keys: KeySchedule::default(),
        review_cache: Duration::ZERO,
        max_staleness: Duration::from_secs(900),
        knows_pods: true,
    };
    Cluster::start(id, &server.client(), config)
}

fn found(clusters: &Clusters, claimed: Option<&str>) -> String {
    match clusters.find(claimed) {
        Ok(cluster) => cluster.id().to_string(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_judged_by_the_cluster_that_it_names_and_by_no_other() {
    let aliases = [("old", "eu-1"), ("west", "us-1")].map(|(a, c)| (a.to_owned(), c.to_owned()));
    let clusters = Clusters::new(cluster("eu-1", vec![]).await)
        .with_aliases(aliases)
        .unwrap();
    assert_eq!(found(&clusters, None), "eu-1");
    assert_eq!(found(&clusters, Some("eu-1")), "eu-1");
    assert_eq!(found(&clusters, Some("old")), "eu-1");
    let unknown = r#"cluster "us-1" is not known (this is eu-1; others: none)"#;
    assert_eq!(found(&clusters, Some("us-1")), unknown);
    clusters.put(cluster("us-1", vec![]).await);
    assert_eq!(found(&clusters, Some("us-1")), "us-1");
    assert_eq!(found(&clusters, Some("west")), "us-1");
    let unknown = r#"cluster "ap-1" is not known (this is eu-1; others: us-1)"#;
    assert_eq!(found(&clusters, Some("ap-1")), unknown);
    clusters.remove("us-1");
    assert!(clusters.find(Some("west")).is_err());
    let twice = [("a", "b"), ("a", "c")].map(|(a, c)| (a.to_owned(), c.to_owned()));
    let error = clusters.with_aliases(twice).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"cluster alias "a" stands for both "b" and "c""#
    );
}

#[tokio::test(start_paused = true)]
async fn the_old_one_goes_on_until_its_successor_knows_its_pods() {
    let clusters = Clusters::new(cluster("eu-1", vec![]).await);
    clusters.put(cluster("us-1", vec![]).await);
    let before = clusters.find(Some("us-1")).unwrap();
    let server = ApiServer::default();
    server.is_silent(true);
    clusters.put(unsynced("us-1", &server));
    assert!(Arc::ptr_eq(&clusters.find(Some("us-1")).unwrap(), &before));
    clusters.put(cluster("us-1", vec![]).await);
    assert!(!Arc::ptr_eq(&clusters.find(Some("us-1")).unwrap(), &before));
}

/// Two clusters, each with a proxy on a node that has a pod of the account `cart`.
async fn proxies() -> NodeProxies {
    let local = vec![
        pod("istio-system", "z", "1", "ztunnel", "n1"),
        pod("shop", "cart-0", "2", "cart", "n1"),
        pod("shop", "gate-0", "3", "gate", "n2"),
    ];
    let remote = vec![
        pod("istio-system", "z", "9", "ztunnel", "n1"),
        pod("shop", "gate-0", "8", "gate", "n1"),
    ];
    let clusters = Clusters::new(cluster("eu-1", local).await);
    clusters.put(cluster("us-1", remote).await);
    let mesh = "cluster.local".parse().unwrap();
    NodeProxies::new(["istio-system/ztunnel"], Arc::new(clusters), mesh).unwrap()
}

fn caller(account: &str, pod: Option<(&str, &str)>, cluster: Option<&str>) -> Caller {
    let account = ServiceAccount::new("istio-system", account).unwrap();
    let name = account.identity(&"cluster.local".parse().unwrap()).unwrap();
    let mut caller = Caller::new(
        "test",
        Source::Token { issuer: None },
        Identities::from(name),
        OffsetDateTime::UNIX_EPOCH,
    );
    caller.service_account = Some(account);
    caller.pod = pod.map(|(name, uid)| Pod {
        name: name.into(),
        uid: uid.into(),
    });
    caller.cluster = cluster.map(Into::into);
    caller
}

fn ztunnel() -> Caller {
    caller("ztunnel", Some(("z", "1")), Some("eu-1"))
}

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const GATE: &str = "spiffe://cluster.local/ns/shop/sa/gate";

#[tokio::test(start_paused = true)]
async fn a_node_proxy_gets_the_names_on_its_node_in_its_cluster() {
    let authorizer = Authorizer::own_names().with_node_proxies(proxies().await);
    let grant = authorizer.authorize(ztunnel(), Some(CART)).unwrap();
    assert_eq!(grant.identities()[0].as_str(), CART);
    assert_eq!(grant.rules()[0].to_string(), "pod on the same node");
    // Its own it has anyway.
    let grant = authorizer.authorize(ztunnel(), None).unwrap();
    assert_eq!(grant.rules()[0].to_string(), "own identity");
    // The account of another cluster is as far away as another node.
    assert!(authorizer.authorize(ztunnel(), Some(GATE)).is_err());
    let remote = caller("ztunnel", Some(("z", "9")), Some("us-1"));
    assert!(authorizer.authorize(remote, Some(GATE)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn every_refusal_of_a_node_proxy_says_why() {
    let authorizer = Authorizer::own_names().with_node_proxies(proxies().await);
    let refused = |caller: Caller, wanted: &str| {
        let error = authorizer.authorize(caller, Some(wanted)).unwrap_err();
        match error {
            AuthzError::NodeProxy { reason, .. } => reason.to_string(),
            other => other.to_string(),
        }
    };
    let not_a_pod = "the caller does not show the token of a pod in a cluster";
    for (caller, wanted, reason) in [
        (caller("ztunnel", None, Some("eu-1")), CART, not_a_pod),
        (caller("ztunnel", Some(("z", "1")), None), CART, not_a_pod),
        (
            caller("other", Some(("z", "1")), Some("eu-1")),
            CART,
            "service account istio-system/other is not a trusted node account",
        ),
        (
            caller("ztunnel", Some(("y", "1")), Some("eu-1")),
            CART,
            "the pod of the caller is not known",
        ),
        (
            caller("ztunnel", Some(("z", "2")), Some("eu-1")),
            CART,
            "the pod of the caller has been replaced by another of the same name",
        ),
        (
            caller("ztunnel", Some(("z", "1")), Some("ap-1")),
            CART,
            r#"cluster "ap-1" is not known (this is eu-1; others: us-1)"#,
        ),
        (
            ztunnel(),
            GATE,
            "no pod on its node n1 has that service account",
        ),
        (
            ztunnel(),
            "spiffe://other/ns/shop/sa/cart",
            "it is not in trust domain cluster.local",
        ),
        (
            ztunnel(),
            "spiffe://cluster.local/shop/cart",
            "it is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>",
        ),
        (
            ztunnel(),
            "spiffe://cluster.local/ns/shop/sa/cart/x",
            "it is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>",
        ),
    ] {
        assert_eq!(refused(caller, wanted), reason);
    }
    assert!(
        refused(ztunnel(), "cart").starts_with("asks on behalf of something that is no identity")
    );
    let error = authorizer.authorize(ztunnel(), Some(GATE)).unwrap_err();
    assert!(!error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn without_trusted_accounts_nobody_is_a_node_proxy() {
    let error = Authorizer::own_names()
        .authorize(ztunnel(), Some(CART))
        .unwrap_err();
    assert!(matches!(error, AuthzError::NotItsName { .. }));
}

#[tokio::test(start_paused = true)]
async fn before_the_pods_are_known_a_node_proxy_is_told_to_try_again() {
    let server = ApiServer::default();
    server.is_silent(true);
    let clusters = Arc::new(Clusters::new(unsynced("eu-1", &server)));
    let mesh = "cluster.local".parse().unwrap();
    let proxies = NodeProxies::new(["istio-system/ztunnel"], clusters, mesh).unwrap();
    let authorizer = Authorizer::own_names().with_node_proxies(proxies);
    let error = authorizer.authorize(ztunnel(), Some(CART)).unwrap_err();
    assert!(error.is_retryable(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_node_proxy_is_told_to_try_again_when_what_is_known_is_too_old() {
    let server = ApiServer::default();
    server.has(
        vec![
            pod("istio-system", "z", "1", "ztunnel", "n1"),
            pod("shop", "cart-0", "2", "cart", "n1"),
        ],
        Vec::new(),
    );
    let cluster = unsynced("eu-1", &server);
    cluster.synced().await;
    let mesh = "cluster.local".parse().unwrap();
    let proxies = NodeProxies::new(
        ["istio-system/ztunnel"],
        Arc::new(Clusters::new(cluster)),
        mesh,
    );
    let proxies = proxies.unwrap();
    let cart = CART.parse().unwrap();
    server.is_silent(true);
    tokio::time::sleep(Duration::from_secs(800)).await;
    assert_eq!(proxies.judge(&ztunnel(), &cart), Ok(()));
    tokio::time::sleep(Duration::from_secs(200)).await;
    let refusal = proxies.judge(&ztunnel(), &cart).unwrap_err();
    assert!(matches!(refusal, NodeProxyRefusal::TooOld { .. }) && refusal.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn a_policy_denies_limits_and_keeps_from_names_as_ever() {
    let mesh = "cluster.local".parse().unwrap();
    let policy = |text: &str| Policy::parse(text, &mesh).unwrap();
    let proxies = proxies().await;
    let asked = |text: &str| {
        let authorizer = Authorizer::by_policy(policy(text)).with_node_proxies(proxies.clone());
        authorizer.authorize(ztunnel(), Some(CART))
    };
    let denied = asked("[[deny]]\nname = \"no\"\nnamespaces = [\"shop\"]\n");
    assert!(matches!(denied, Err(AuthzError::Denied { .. })));
    let kept = asked("own-identity = \"deny\"\n");
    assert!(matches!(kept, Err(AuthzError::NotItsName { .. })));
    let limited = asked("[[limit]]\nname = \"short\"\nnamespaces = [\"shop\"]\nmax-ttl = \"1h\"\n");
    assert_eq!(limited.unwrap().max_ttl(), Some(Duration::from_secs(3600)));
}

#[test]
fn an_account_has_a_namespace_and_a_name() {
    for bad in ["ztunnel", "", "/", "a/", "/b", "a/b/c", "a b/c"] {
        let error = super::super::node_proxy::parse_account(bad).unwrap_err();
        assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
    }
}
