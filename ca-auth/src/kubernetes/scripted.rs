//! An API server for unit tests that answers what a test says. How a real one behaves is for the tests of the program.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// What a test has said so far.
#[derive(Clone, Default)]
pub(super) struct ApiServer(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    pods: Vec<Value>,
    accounts: Vec<Value>,
    documents: Option<(Value, Value)>,
    /// The status of a review.
    review: Option<(u16, Value)>,
    /// After how long a watch is closed; `None`: never.
    watch: Option<Duration>,
    /// With what a watch is refused.
    refusal: Option<u16>,
    /// Answers nothing at all.
    is_silent: bool,
    reviewed: Vec<Value>,
}

impl ApiServer {
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(service, "default")
    }

    pub(super) fn has(&self, pods: Vec<Value>, accounts: Vec<Value>) {
        let mut script = self.0.lock().unwrap();
        (script.pods, script.accounts) = (pods, accounts);
    }

    pub(super) fn publishes(&self, issuer: &str, keys: Value) {
        self.0.lock().unwrap().documents = Some((json!({ "issuer": issuer }), keys));
    }

    pub(super) fn reviews_with(&self, code: u16, status: Value) {
        self.0.lock().unwrap().review = Some((code, status));
    }

    pub(super) fn closes_watches_after(&self, time: Duration) {
        self.0.lock().unwrap().watch = Some(time);
    }

    pub(super) fn refuses_watches_with(&self, code: u16) {
        self.0.lock().unwrap().refusal = Some(code);
    }

    pub(super) fn is_silent(&self, silent: bool) {
        self.0.lock().unwrap().is_silent = silent;
    }

    /// The bodies of all reviews.
    pub(super) fn reviewed(&self) -> Vec<Value> {
        self.0.lock().unwrap().reviewed.clone()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let is_watch = parts
            .uri
            .query()
            .is_some_and(|query| query.contains("watch=true"));
        let body = body.collect().await.unwrap().to_bytes();
        let answer = {
            let mut script = self.0.lock().unwrap();
            if path.ends_with("/tokenreviews") {
                let review = serde_json::from_slice(&body).unwrap();
                script.reviewed.push(review);
            }
            script.answer(&path)
        };
        let Some((code, answer)) = answer else {
            return std::future::pending().await;
        };
        let refusal = self.0.lock().unwrap().refusal;
        if let Some(code) = refusal.filter(|_| is_watch) {
            let status = json!({ "kind": "Status", "code": code, "message": "no watch" });
            let body = Full::new(Bytes::from(status.to_string()));
            let answer = Response::builder().status(code);
            return answer.body(body.boxed_unsync()).unwrap();
        }
        if is_watch {
            // Open, and nothing happens until it ends.
            let end = self.0.lock().unwrap().watch;
            let nothing = futures_util::stream::poll_fn(|_| Poll::Pending);
            let nothing = nothing.take_until(async move {
                match end {
                    Some(time) => tokio::time::sleep(time).await,
                    None => std::future::pending().await,
                }
            });
            let nothing = nothing.map(Ok::<Frame<Bytes>, Infallible>);
            return Response::new(StreamBody::new(nothing).boxed_unsync());
        }
        let body = Full::new(Bytes::from(answer.to_string()));
        Response::builder()
            .status(code)
            .body(body.boxed_unsync())
            .unwrap()
    }
}

impl Script {
    fn answer(&self, path: &str) -> Option<(u16, Value)> {
        if self.is_silent {
            return None;
        }
        let list = |items: &Vec<Value>| {
            let metadata = json!({ "resourceVersion": "7" });
            Some((200, json!({ "metadata": metadata, "items": items })))
        };
        let away = json!({ "kind": "Status", "status": "Failure", "code": 503, "message": "away" });
        match path {
            "/api/v1/pods" => list(&self.pods),
            "/api/v1/serviceaccounts" => list(&self.accounts),
            "/.well-known/openid-configuration" => match &self.documents {
                Some((discovery, _)) => Some((200, discovery.clone())),
                None => Some((503, away)),
            },
            "/openid/v1/jwks" => match &self.documents {
                Some((_, keys)) => Some((200, keys.clone())),
                None => Some((503, away)),
            },
            path if path.ends_with("/tokenreviews") => match &self.review {
                Some((201, status)) => Some((201, json!({ "status": status }))),
                Some((code, status)) => Some((*code, status.clone())),
                None => Some((503, away)),
            },
            _ => Some((
                404,
                json!({ "kind": "Status", "code": 404, "message": "not found" }),
            )),
        }
    }
}

/// A pod as an API server sends it.
pub(super) fn pod(namespace: &str, name: &str, uid: &str, account: &str, node: &str) -> Value {
    json!({
        "metadata": { "namespace": namespace, "name": name, "uid": uid, "resourceVersion": "1" },
        "spec": { "serviceAccountName": account, "nodeName": node, "containers": [] },
        "status": { "phase": "Running" },
    })
}

pub(super) fn account(namespace: &str, name: &str, uid: &str) -> Value {
    json!({ "metadata": { "namespace": namespace, "name": name, "uid": uid, "resourceVersion": "1" } })
}

/// What an API server says of a token that is good.
pub(super) fn good_review(user: &str, pod: Option<(&str, &str)>) -> Value {
    let mut extra = json!({});
    if let Some((name, uid)) = pod {
        extra["authentication.kubernetes.io/pod-name"] = json!([name]);
        extra["authentication.kubernetes.io/pod-uid"] = json!([uid]);
    }
    json!({
        "authenticated": true,
        "audiences": ["istio-ca"],
        "user": {
            "username": user,
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "extra": extra,
        },
    })
}
