use std::time::Duration;

use ca_core::testing::TestCa;
use k8s_openapi::api::core::v1;

use super::*;
use crate::{
    gateway::testing::{name, secret, tls_secret},
    secrets::{Contents as Served, Publisher, Secrets, testing},
};

/// A shelf, and a cluster that a test speaks for.
struct Stage {
    ca: TestCa,
    credentials: Credentials,
    secrets: Secrets,
    edge: Arc<str>,
    _publisher: Publisher,
}

impl Stage {
    fn new() -> Self {
        let (publisher, mut secrets) = testing::channel();
        let namespaces = Namespaces::new("edge", ["shop".to_owned()]);
        let metrics = Arc::new(Metrics::new());
        Self {
            ca: TestCa::new("cluster.local"),
            credentials: secrets.serve_credentials(&publisher, metrics, namespaces),
            secrets,
            edge: "edge".into(),
            _publisher: publisher,
        }
    }

    fn list(&self, secrets: impl IntoIterator<Item = v1::Secret>) {
        let named = secrets.into_iter().map(|secret| {
            let name = secret.metadata.name.clone().unwrap();
            (name.into(), Contents::of(secret))
        });
        self.credentials.list(&self.edge, named.collect());
    }

    fn apply(&self, secret: v1::Secret) {
        let name = secret.metadata.name.clone().unwrap();
        self.credentials
            .apply(&self.edge, &name, Contents::of(secret));
    }

    /// The certificates that are served under this name.
    fn served(&self, text: &str) -> Option<String> {
        let shelf = self.secrets.shelf();
        let served = shelf.last(&name(text))?;
        Some(match served.contents() {
            Served::KeyPair { chain, .. } => chain.clone(),
            Served::Roots { roots, .. } => roots.clone(),
        })
    }

    fn trouble(&self, text: &str) -> String {
        let troubles = self.secrets.troubles();
        let found = troubles
            .into_iter()
            .find(|(name, _)| name.to_string() == text);
        found.map_or_else(String::new, |(_, reason)| reason.to_string())
    }

    fn follow(&self, text: &str) -> FollowingCredential {
        self.credentials.follow(&name(text)).unwrap()
    }
}

#[test]
fn a_credential_is_served_once_the_secrets_are_listed_and_then_with_each_change() {
    let stage = Stage::new();
    let _bare = stage.follow("shop");
    let _uri = stage.follow("kubernetes://edge/shop");
    assert_eq!(
        (stage.served("shop"), stage.trouble("shop")),
        (None, String::new())
    );
    let (first, certificate) = tls_secret("shop", &stage.ca);
    stage.list([first]);
    for name in ["shop", "kubernetes://edge/shop"] {
        assert_eq!(stage.served(name).as_ref(), Some(&certificate));
    }
    assert_eq!(stage.served("kubernetes://shop"), None, "nobody has asked");
    let _later = stage.follow("kubernetes://shop");
    assert_eq!(stage.served("kubernetes://shop"), Some(certificate));
    let (second, certificate) = tls_secret("shop", &stage.ca);
    stage.apply(second);
    for name in ["shop", "kubernetes://edge/shop", "kubernetes://shop"] {
        assert_eq!(stage.served(name).as_ref(), Some(&certificate));
    }
}

#[test]
fn what_is_not_fit_is_told_and_the_last_good_value_stays() {
    let stage = Stage::new();
    let _user = stage.follow("shop");
    let (good, certificate) = tls_secret("shop", &stage.ca);
    let (key, _) = stage.ca.workload("edge", "gateway");
    stage.list([good.clone()]);
    let mismatch = [("tls.crt", &*certificate), ("tls.key", &key.to_pkcs8_pem())];
    for (data, reason) in [
        (&mismatch[..], "does not belong to the certificate"),
        (&[("tls.crt", "junk"), ("tls.key", "junk")], "does not read"),
        (&[("tls.crt", ""), ("tls.key", "")], "but they were empty"),
        (&[("password", "x")], "found password"),
    ] {
        stage.apply(secret("shop", data));
        assert!(
            stage.trouble("shop").contains(reason),
            "{}",
            stage.trouble("shop")
        );
        assert_eq!(stage.served("shop").as_ref(), Some(&certificate));
    }
    assert_eq!(stage.credentials.0.metrics.credential_refusals.get(), 4);
    // Told once, however often it comes.
    stage.apply(secret("shop", &[("password", "x")]));
    assert_eq!(stage.credentials.0.metrics.credential_refusals.get(), 4);
    stage.apply(good);
    assert_eq!(stage.trouble("shop"), "");
}

#[test]
fn a_secret_that_is_named_for_the_ca_counts_before_the_pairs() {
    let stage = Stage::new();
    let (other, _user) = (TestCa::new("other"), stage.follow("shop-cacert"));
    let (root, other_root) = (stage.ca.root_pem(), other.root_pem());
    let (mut pair, _) = tls_secret("shop", &stage.ca);
    stage.list([pair.clone()]);
    assert!(
        stage
            .trouble("shop-cacert")
            .contains("(cacert) or (ca.crt)")
    );
    let beside = secret("", &[("ca.crt", &root)]).data.unwrap();
    pair.data.as_mut().unwrap().extend(beside);
    stage.apply(pair.clone());
    assert_eq!(stage.served("shop-cacert").as_ref(), Some(&root));
    // As soon as it is there, whichever layout it has.
    stage.apply(secret("shop-cacert", &[("cacert", &other_root)]));
    assert_eq!(stage.served("shop-cacert").as_ref(), Some(&other_root));
    // Also when it holds none: nobody falls back to what was not meant. Nor does it give a key away.
    let (split, _) = tls_secret("shop-cacert", &stage.ca);
    stage.apply(split);
    assert_eq!(stage.served("shop-cacert").as_ref(), Some(&other_root));
    assert!(
        stage
            .trouble("shop-cacert")
            .contains("found tls.crt, tls.key")
    );
    stage.credentials.delete(&stage.edge, "shop-cacert");
    assert_eq!(stage.served("shop-cacert"), Some(root));
}

#[test]
fn a_deleted_secret_is_served_to_nobody_new_and_its_return_is_seen() {
    let stage = Stage::new();
    let _users = ["shop", "shop-cacert"].map(|name| stage.follow(name));
    let (mut both, certificate) = tls_secret("shop", &stage.ca);
    let beside = secret("", &[("ca.crt", &stage.ca.root_pem())])
        .data
        .unwrap();
    both.data.as_mut().unwrap().extend(beside);
    let (unrelated, _) = tls_secret("other", &stage.ca);
    stage.list([both.clone(), unrelated.clone()]);
    stage.credentials.delete(&stage.edge, "other");
    assert!(stage.served("shop").is_some());
    stage.credentials.delete(&stage.edge, "shop");
    for name in ["shop", "shop-cacert"] {
        assert_eq!(stage.served(name), None);
        assert_eq!(stage.trouble(name), format!("secret edge/{name} not found"));
    }
    stage.apply(both.clone());
    assert_eq!(stage.served("shop"), Some(certificate));
    // Deleted while nobody watched.
    stage.list([unrelated]);
    assert_eq!(stage.served("shop"), None);
    stage.list([both]);
    assert!(stage.served("shop").is_some() && stage.served("shop-cacert").is_some());
}

#[test]
fn namespaces_are_kept_apart() {
    let stage = Stage::new();
    let names = [
        "kubernetes-gateway://shop/tls",
        "kubernetes://shop/tls",
        "kubernetes-gateway://other/tls",
        "tls",
    ];
    let _users = names.map(|name| stage.follow(name));
    let (in_shop, certificate) = tls_secret("tls", &stage.ca);
    let listed = [("tls".into(), Contents::of(in_shop))].into();
    stage.credentials.list(&"shop".into(), listed);
    stage.list([]);
    assert_eq!(
        names.map(|name| stage.served(name)),
        [Some(certificate), None, None, None]
    );
    let reasons = [
        "",
        "kubernetes-gateway:// names",
        "namespace other",
        "edge/tls not found",
    ];
    for (name, reason) in names.into_iter().zip(reasons) {
        let told = stage.trouble(name);
        assert!(
            told.contains(reason.trim_end_matches(" names")),
            "{name}: {told}"
        );
    }
}

#[test]
fn an_outage_is_told_and_changes_nothing_else() {
    let stage = Stage::new();
    let _user = stage.follow("shop");
    let (good, _) = tls_secret("shop", &stage.ca);
    stage.credentials.away(&stage.edge, "forbidden (403)");
    let told = |stage: &Stage| {
        let standings = stage.credentials.standings();
        let edge = standings
            .into_iter()
            .find(|standing| *standing.namespace == *"edge");
        edge.map(|edge| (edge.secrets, edge.trouble.as_deref().map(str::to_owned)))
            .unwrap()
    };
    assert_eq!(told(&stage), (None, Some("forbidden (403)".to_owned())));
    stage.list([good]);
    assert_eq!(told(&stage), (Some(1), None));
    stage.credentials.away(&stage.edge, "cannot connect");
    assert!(stage.served("shop").is_some());
    assert_eq!(
        stage.credentials.0.metrics.credential_watch_failures.get(),
        2
    );
}

#[test]
fn names_that_nobody_wants_any_more_make_place_and_no_others() {
    let stage = Stage::new();
    let (good, _) = tls_secret("shop", &stage.ca);
    stage.list([good]);
    drop(stage.follow("shop"));
    assert!(
        stage.served("shop").is_some(),
        "for a client that comes back"
    );
    let names = (1..MOST_NAMES).map(|number| stage.follow(&format!("name-{number}")));
    let mut users: Vec<_> = names.collect();
    users.push(stage.follow("one-more"));
    assert_eq!(stage.served("shop"), None);
    let refused = stage.credentials.follow(&name("shop")).unwrap_err();
    assert!(refused.to_string().starts_with("1024 names"), "{refused}");
    users.pop();
    drop(stage.follow("shop"));
}

#[tokio::test]
async fn what_becomes_valid_is_served_from_then_on() {
    let stage = Stage::new();
    let _user = stage.follow("shop");
    let mut watched = stage.secrets.clone();
    let judging = tokio::spawn(stage.credentials.clone().judge_again_when_due());
    // A quarter of a short life lies before the moment of issue.
    let lifetime = Duration::from_secs(40);
    let later = clock::now() + Duration::from_secs(11);
    let names = [stage.ca.id("edge", "gateway").into()];
    let (key, issued) = testing::issue(&stage.ca, &names, lifetime, later);
    let chain = issued.chain();
    assert!(chain.leaf().not_before() > clock::now());
    let data = [
        ("tls.crt", &*chain.to_pem()),
        ("tls.key", &key.to_pkcs8_pem()),
    ];
    stage.list([secret("shop", &data)]);
    assert!(
        stage.trouble("shop").contains("not valid before"),
        "{}",
        stage.trouble("shop")
    );
    let served = async {
        while stage.served("shop").is_none() {
            watched.changed().await.unwrap();
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, served)
        .await
        .expect("it is valid by now");
    assert_eq!(stage.trouble("shop"), "");
    judging.abort();
}
