use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ca_core::{KeyKind, PrivateKey, SigningKey as _};
use jsonwebtoken::crypto::aws_lc;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::scripted::{self, ApiServer, good_review};
use crate::kubernetes::workloads::Gone;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const CART: &str = "system:serviceaccount:shop:cart";

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

/// What signs the tokens of a cluster.
struct Signer(PrivateKey);

impl Signer {
    fn new() -> Self {
        Self(PrivateKey::generate(KeyKind::Ed25519).unwrap())
    }

    fn keys(&self) -> Value {
        let spki = self.0.public_key().spki_der();
        let x = URL_SAFE_NO_PAD.encode(&spki[spki.len() - 32..]);
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.id() }] })
    }

    fn id(&self) -> String {
        crate::issuer_keys::fingerprint(self.0.public_key())
    }

    fn token(&self, claims: &Value) -> String {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let header = json!({ "alg": "EdDSA", "kid": self.id() });
        let message = format!("{}.{}", encode(&header), encode(claims));
        let key = EncodingKey::from_ed_der(self.0.pkcs8_der());
        let signer = (aws_lc::DEFAULT_PROVIDER.signer_factory)(&Algorithm::EdDSA, &key).unwrap();
        let signature = signer.try_sign(message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A token of pod `p` with UID 1.
fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": CART, "aud": ["istio-ca"], "exp": now().unix_timestamp() + 3600,
        "kubernetes.io": {
            "namespace": "shop",
            "serviceaccount": { "name": "cart", "uid": "a" },
            "pod": { "name": "p", "uid": "1" },
            "node": { "name": "n1", "uid": "n" },
        },
    })
}

fn config() -> ClusterConfig {
    ClusterConfig {
        trust_domain: "cluster.local".parse().unwrap(),
        audiences: Audiences::default(),
        clock_skew: Duration::ZERO,
        judgement: Judgement::Local,
        keys: KeySchedule::default(),
        review_cache: Duration::from_secs(10),
        max_staleness: Duration::from_secs(900),
        knows_pods: false,
    }
}

/// An API server with one pod and its account, and what signs its tokens.
fn shop() -> (ApiServer, Signer) {
    let (server, signer) = (ApiServer::default(), Signer::new());
    server.has(
        vec![scripted::pod("shop", "p", "1", "cart", "n1")],
        vec![scripted::account("shop", "cart", "a")],
    );
    server.publishes(ISSUER, signer.keys());
    (server, signer)
}

async fn started(server: &ApiServer) -> Cluster {
    let cluster = Cluster::start("eu-1", &server.client(), config());
    cluster.synced().await;
    cluster
}

fn refusal(verdict: Result<Caller, AuthnError>) -> String {
    verdict.unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_pod_that_is_there_is_judged_without_asking() {
    let (server, signer) = shop();
    let cluster = started(&server).await;
    let caller = cluster
        .judge(&signer.token(&claims()), now())
        .await
        .unwrap();
    assert_eq!(
        caller.identities.as_slice()[0].as_str(),
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert_eq!(caller.authenticator, "kubernetes");
    assert_eq!(caller.cluster.as_deref(), Some("eu-1"));
    assert_eq!(caller.pod.unwrap().uid, "1");
    assert_eq!(
        caller.source,
        Source::Token {
            issuer: Some(ISSUER.into())
        }
    );
    assert!(server.reviewed().is_empty());
    let status = cluster.status();
    assert_eq!(status.issuer.as_deref(), Some(ISSUER));
    let index = status.index.unwrap();
    assert_eq!(
        (index.pods, index.service_accounts, index.failure),
        (1, 1, None)
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_token_is_found_without_asking() {
    let (server, signer) = shop();
    let cluster = started(&server).await;
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        signer.token(&claims)
    };
    let mut forged = signer.token(&claims());
    forged.truncate(forged.len() - 8);
    forged.push_str("AAAAAAAA");
    for (token, reason) in [
        (
            with("aud", json!("vault")),
            "rejected: meant for \"vault\", not for us",
        ),
        (
            with("exp", json!(now().unix_timestamp())),
            "rejected: expired at 2027-01-15T08:00:00Z",
        ),
        (
            with("sub", json!("alice")),
            "rejected: subject: not of the form system:serviceaccount:<namespace>:<service account>",
        ),
        (forged, "rejected: the signature does not verify"),
        ("x".into(), "rejected: not a signed JSON Web Token"),
        // No API server is asked about what says of itself that it is not for us, whoever signed it.
        (
            Signer::new().token(&json!({ "iss": "x", "sub": CART, "exp": 1, "aud": [] })),
            "rejected: the token is of issuer \"x\", not of \"https://kubernetes.default.svc.cluster.local\"; \
             expired at 1970-01-01T00:00:01Z",
        ),
    ] {
        assert_eq!(refusal(cluster.judge(&token, now()).await), reason);
    }
    assert!(server.reviewed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_api_server_is_asked_about_what_cannot_be_told_here() {
    let (server, signer) = shop();
    let cluster = started(&server).await;
    let mut unknown_pod = claims();
    unknown_pod["kubernetes.io"]["pod"] = json!({ "name": "q", "uid": "2" });
    let mut of_secret = claims();
    of_secret["kubernetes.io"]["secret"] = json!({ "name": "s", "uid": "3" });
    let mut other_issuer = claims();
    other_issuer["iss"] = json!("https://before");
    for (token, why) in [
        (signer.token(&unknown_pod), "its pod is not known"),
        (
            signer.token(&of_secret),
            "it is bound to an object that is not watched",
        ),
        (
            signer.token(&other_issuer),
            "the token is of issuer \"https://before\", not of ",
        ),
        (Signer::new().token(&claims()), "the issuer has no key"),
    ] {
        server.reviews_with(201, json!({ "error": "gone" }));
        let reason = refusal(cluster.judge(&token, now()).await);
        assert!(
            reason.starts_with("rejected: ") && reason.contains(why),
            "{reason}"
        );
        assert!(
            reason.ends_with("the API server does not accept it: gone"),
            "{reason}"
        );
        tokio::time::advance(Duration::from_secs(2)).await;

        server.reviews_with(
            503,
            json!({ "kind": "Status", "code": 503, "message": "away" }),
        );
        let reason = refusal(cluster.judge(&token, now()).await);
        assert!(
            reason.starts_with("could not ask: ") && reason.contains(why),
            "{reason}"
        );
        tokio::time::advance(Duration::from_secs(2)).await;

        server.reviews_with(201, good_review(CART, Some(("q", "2"))));
        let caller = cluster.judge(&token, now()).await.unwrap();
        assert_eq!(caller.cluster.as_deref(), Some("eu-1"));
        assert_eq!(caller.pod.unwrap().name, "q");
    }
    assert_eq!(cluster.status().reviews.failed, 4);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_stops_nobody_until_what_is_known_is_too_old() {
    let (server, signer) = shop();
    let cluster = started(&server).await;
    let token = signer.token(&claims());
    // The keys are fetched with the first token.
    cluster.judge(&token, now()).await.unwrap();
    server.is_silent(true);
    for (seconds, is_good) in [(10, true), (100, true), (780, true), (200, false)] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let verdict = cluster.judge(&token, now()).await;
        assert_eq!(
            verdict.is_ok(),
            is_good,
            "after {seconds} s more: {verdict:?}"
        );
        if !is_good {
            let reason = refusal(verdict);
            assert!(
                reason.starts_with("could not ask: what is known of its pod is too old"),
                "{reason}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn before_anything_is_known_tokens_are_reviewed() {
    let (server, signer) = shop();
    server.is_silent(true);
    let cluster = Cluster::start("eu-1", &server.client(), config());
    let verdict = cluster.judge(&signer.token(&claims()), now()).await;
    assert!(
        matches!(verdict, Err(AuthnError::CouldNotAsk(_))),
        "{verdict:?}"
    );

    let server = ApiServer::default();
    server.reviews_with(201, good_review(CART, Some(("p", "1"))));
    // It publishes no keys.
    let cluster = Cluster::start("eu-1", &server.client(), config());
    assert!(cluster.judge(&signer.token(&claims()), now()).await.is_ok());
    assert_eq!(server.reviewed().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn where_every_token_is_reviewed_nothing_is_watched() {
    let (server, signer) = shop();
    server.reviews_with(201, good_review(CART, Some(("p", "1"))));
    let config = ClusterConfig {
        judgement: Judgement::Review,
        ..config()
    };
    let cluster = Cluster::start("eu-1", &server.client(), config);
    cluster.synced().await;
    let caller = cluster
        .judge(&signer.token(&claims()), now())
        .await
        .unwrap();
    assert_eq!(caller.expires, now() + Duration::from_secs(3600));
    assert_eq!(server.reviewed().len(), 1);
    assert_eq!(cluster.status().index, None);
}

#[test]
fn what_is_gone_is_refused_and_what_is_old_is_asked_about() {
    let max = Duration::from_secs(900);
    let decided =
        |standing: Standing, age: u64| match decide(standing, Duration::from_secs(age), max) {
            Next::Accept => "accept",
            Next::Refuse(_) => "refuse",
            Next::Ask(_) => "ask",
            Next::AskIfPossible => "ask if possible",
        };
    for (standing, age, expected) in [
        (Standing::Alive, 0, "accept"),
        (Standing::Alive, 60, "accept"),
        (Standing::Alive, 61, "ask if possible"),
        (Standing::Alive, 900, "ask if possible"),
        (Standing::Alive, 901, "ask"),
        (Standing::Gone(Gone::Pod), 0, "refuse"),
        (Standing::Gone(Gone::Pod), 901, "refuse"),
        (Standing::Unknown(NotKnown::Pod), 0, "ask"),
    ] {
        assert_eq!(decided(standing, age), expected);
    }
    // Who allows for nothing old is never judged by it.
    let next = decide(Standing::Alive, Duration::from_secs(1), Duration::ZERO);
    assert!(matches!(next, Next::Ask(_)));
}
