use serde_json::{Value, json};

use super::*;
use crate::kubernetes::scripted::{ApiServer, good_review};

const CART: &str = "system:serviceaccount:shop:cart";

fn judged(status: Value) -> Result<Reviewed, String> {
    let status = serde_json::from_value(status).unwrap();
    judge(status, &Audiences::default()).map_err(|refusal| refusal.to_string())
}

fn changed(pointer: &str, value: Value) -> Value {
    let mut status = good_review(CART, Some(("p", "1")));
    *status.pointer_mut(pointer).unwrap() = value;
    status
}

#[test]
fn a_good_answer_names_the_account_and_its_pod() {
    let reviewed = judged(good_review(CART, Some(("p", "1")))).unwrap();
    assert_eq!(
        reviewed.account,
        ServiceAccount::new("shop", "cart").unwrap()
    );
    let pod = reviewed.pod.unwrap();
    assert_eq!((&*pod.name, &*pod.uid), ("p", "1"));
    assert_eq!(judged(good_review(CART, None)).unwrap().pod, None);
    // Half a pod is none.
    let half = changed(
        "/user/extra/authentication.kubernetes.io~1pod-uid",
        json!([]),
    );
    assert_eq!(judged(half).unwrap().pod, None);
}

#[test]
fn an_answer_that_is_not_good_in_every_way_is_a_refusal() {
    let nothing = "the API server does not accept it: it gives no reason";
    let unaware = "the API server does not say that it is meant for us";
    for (status, reason) in [
        (json!({}), nothing),
        (
            json!({ "error": "token has expired" }),
            "the API server does not accept it: token has expired",
        ),
        (changed("/authenticated", json!(false)), nothing),
        (changed("/audiences", json!([])), unaware),
        (
            changed("/audiences", json!(["https://kubernetes.default.svc"])),
            unaware,
        ),
        (
            changed("/user/groups", json!(["system:serviceaccounts:shop"])),
            "its bearer is not in the group system:serviceaccounts",
        ),
        (
            changed("/user/username", json!("alice")),
            "its bearer: not of the form system:serviceaccount:<namespace>:<service account>",
        ),
        (
            changed("/user/username", json!("user:serviceaccount:shop:cart")),
            "its bearer: not of the form system:serviceaccount:<namespace>:<service account>",
        ),
    ] {
        assert_eq!(judged(status).unwrap_err(), reason);
    }
    let mut both = good_review(CART, None);
    both["error"] = json!("and yet");
    assert!(judged(both).is_err());
}

fn reviewer(server: &ApiServer) -> TokenReviewer {
    TokenReviewer::new(
        server.client(),
        Audiences::default(),
        Duration::from_secs(10),
    )
}

#[tokio::test(start_paused = true)]
async fn the_same_token_is_asked_about_once_and_by_our_audiences() {
    let server = ApiServer::default();
    server.reviews_with(201, good_review(CART, None));
    let reviewer = reviewer(&server);
    let all = futures_util::future::join_all((0..100).map(|_| reviewer.review("token"))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(
        server.reviewed(),
        [json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": "token", "audiences": ["istio-ca"] },
        })]
    );
    reviewer.review("another").await.unwrap();
    let counts = reviewer.counts();
    assert_eq!((counts.asked, counts.remembered, counts.failed), (2, 99, 0));
    tokio::time::advance(Duration::from_secs(10)).await;
    reviewer.review("token").await.unwrap();
    assert_eq!(server.reviewed().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_for_less_long() {
    let server = ApiServer::default();
    server.reviews_with(201, json!({ "error": "no" }));
    let reviewer = reviewer(&server);
    for _ in 0..2 {
        assert!(matches!(
            reviewer.review("token").await,
            Err(NotReviewed::Refused(_))
        ));
    }
    assert_eq!(server.reviewed().len(), 1);
    server.reviews_with(201, good_review(CART, None));
    tokio::time::advance(REFUSED_FOR).await;
    assert!(reviewer.review("token").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_in_trouble_is_left_alone_for_a_moment() {
    for code in [401, 403, 429, 500, 503] {
        let server = ApiServer::default();
        server.reviews_with(
            code,
            json!({ "kind": "Status", "code": code, "message": "trouble" }),
        );
        let reviewer = reviewer(&server);
        for token in ["a", "b", "a"] {
            let answer = reviewer.review(token).await;
            let Err(NotReviewed::CouldNotAsk(error)) = answer else {
                panic!("{code}: {answer:?}");
            };
            assert!(error.to_string().contains("trouble"), "{error}");
        }
        assert_eq!(server.reviewed().len(), 1, "{code}");
        server.reviews_with(201, good_review(CART, None));
        tokio::time::advance(REST).await;
        assert!(reviewer.review("a").await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_says_how_long_to_leave_it_alone() {
    let server = ApiServer::default();
    let busy = json!({ "kind": "Status", "code": 429, "message": "busy", "details": { "retryAfterSeconds": 5 } });
    server.reviews_with(429, busy);
    let reviewer = reviewer(&server);
    assert!(reviewer.review("a").await.is_err());
    server.reviews_with(201, good_review(CART, None));
    tokio::time::advance(Duration::from_secs(4)).await;
    assert!(reviewer.review("a").await.is_err());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(reviewer.review("a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_one_request_is_no_trouble_for_others() {
    let server = ApiServer::default();
    server.reviews_with(
        422,
        json!({ "kind": "Status", "code": 422, "message": "odd" }),
    );
    let reviewer = reviewer(&server);
    assert!(matches!(
        reviewer.review("a").await,
        Err(NotReviewed::CouldNotAsk(_))
    ));
    server.reviews_with(201, good_review(CART, None));
    assert!(reviewer.review("b").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_waited_for_no_longer_than_a_caller_waits() {
    let server = ApiServer::default();
    server.is_silent(true);
    let reviewer = reviewer(&server);
    let asked = Instant::now();
    assert!(matches!(
        reviewer.review("a").await,
        Err(NotReviewed::CouldNotAsk(_))
    ));
    assert_eq!(asked.elapsed(), DEADLINE);
    assert_eq!(reviewer.counts().failed, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_is_no_answer_and_is_not_told() {
    let server = ApiServer::default();
    server.reviews_with(200, json!({ "spec": { "token": "secret" } }));
    let Err(NotReviewed::CouldNotAsk(error)) = reviewer(&server).review("secret").await else {
        panic!("an answer without a status");
    };
    assert!(!error.to_string().contains("secret"), "{error}");
}
