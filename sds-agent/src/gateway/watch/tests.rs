use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use ca_core::testing::TestCa;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::{
    gateway::{
        Namespaces,
        testing::{name, secret, tls_secret},
    },
    metrics::Metrics,
    secrets::{Secrets, testing},
};

/// What one request is answered with: a status and an object, or events for as long as the test sends some.
enum Reply {
    Object(u16, Value),
    Events(mpsc::UnboundedReceiver<Value>),
}

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// An API server that answers what a test says. How a real one behaves is for `cargo xtask interop kubernetes`.
#[derive(Clone)]
struct ApiServer {
    replies: Arc<Mutex<Vec<Reply>>>,
    asked: mpsc::UnboundedSender<String>,
}

impl ApiServer {
    async fn answer(self, request: Request<Body>) -> Result<Response<Answer>, Infallible> {
        let _ = self.asked.send(request.uri().to_string());
        let reply = {
            let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
            (!replies.is_empty()).then(|| replies.remove(0))
        };
        let (code, body) = match reply {
            Some(Reply::Object(code, object)) => (
                code,
                Full::new(Bytes::from(object.to_string())).boxed_unsync(),
            ),
            Some(Reply::Events(events)) => {
                let events = stream::unfold(events, |mut events| async {
                    let event: Value = events.recv().await?;
                    let line = Bytes::from(format!("{event}\n"));
                    Some((Ok::<_, Infallible>(Frame::data(line)), events))
                });
                (200, StreamBody::new(events).boxed_unsync())
            }
            // The script has ended.
            None => std::future::pending().await,
        };
        Ok(Response::builder().status(code).body(body).unwrap())
    }
}

struct Stage {
    ca: TestCa,
    secrets: Secrets,
    credentials: Credentials,
    asked: mpsc::UnboundedReceiver<String>,
    _publisher: crate::secrets::Publisher,
}

impl Stage {
    /// Follows namespace `edge` of an API server that answers so.
    fn new(replies: Vec<Reply>, selector: Option<&str>) -> Self {
        let (publisher, mut secrets) = testing::channel();
        let namespaces = Namespaces::new("edge", []);
        let metrics = Arc::new(Metrics::new());
        let credentials = secrets.serve_credentials(&publisher, metrics, namespaces);
        let (sender, asked) = mpsc::unbounded_channel();
        let server = ApiServer {
            replies: Arc::new(Mutex::new(replies)),
            asked: sender,
        };
        let service = tower::service_fn(move |request| server.clone().answer(request));
        let client = Client::new(service, "edge");
        let selector = selector.map(str::to_owned);
        tokio::spawn(follow(client, "edge".into(), selector, credentials.clone()));
        Self {
            ca: TestCa::new("cluster.local"),
            secrets,
            credentials,
            asked,
            _publisher: publisher,
        }
    }

    async fn asked(&mut self) -> String {
        let asked = tokio::time::timeout(LIMIT, self.asked.recv());
        asked.await.expect("a request in time").expect("a request")
    }

    /// Waits until this certificate is served as `shop`, or none.
    async fn serves(&self, certificate: Option<&str>) {
        let mut secrets = self.secrets.clone();
        let served = async {
            loop {
                let shelf = secrets.shelf();
                let chain = shelf
                    .last(&name("shop"))
                    .map(|secret| match secret.contents() {
                        crate::secrets::Contents::KeyPair { chain, .. } => chain.as_str(),
                        crate::secrets::Contents::Roots { roots, .. } => roots.as_str(),
                    });
                if chain == certificate {
                    return;
                }
                secrets.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, served)
            .await
            .expect("served in time");
    }

    /// Waits until the namespace is said to be in this trouble, or in none.
    async fn troubled(&self, part: Option<&str>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let told = async {
            loop {
                ticks.tick().await;
                let standing = self.credentials.standings().remove(0);
                match (part, standing.trouble) {
                    (None, None) => return,
                    (Some(part), Some(trouble)) if trouble.contains(part) => return,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(LIMIT, told)
            .await
            .expect("told in time");
    }
}

const LIMIT: Duration = Duration::from_secs(20);

fn list(version: &str, secrets: &[&Secret]) -> Reply {
    let metadata = json!({ "resourceVersion": version });
    let list =
        json!({ "kind": "SecretList", "apiVersion": "v1", "metadata": metadata, "items": secrets });
    Reply::Object(200, list)
}

fn refusal(code: u16, message: &str) -> Reply {
    let status = json!({ "kind": "Status", "status": "Failure", "code": code, "message": message, "reason": "x" });
    Reply::Object(code, status)
}

fn event(kind: &str, object: &Secret) -> Value {
    let mut object = serde_json::to_value(object).unwrap();
    object["kind"] = "Secret".into();
    object["apiVersion"] = "v1".into();
    json!({ "type": kind, "object": object })
}

#[tokio::test]
async fn each_change_that_the_watch_tells_of_is_served() {
    let ca = TestCa::new("cluster.local");
    let (first, old) = tls_secret("shop", &ca);
    let (second, new) = tls_secret("shop", &ca);
    let (events, script) = mpsc::unbounded_channel();
    let replies = vec![list("7", &[&first]), Reply::Events(script)];
    let mut stage = Stage::new(replies, Some("mesh=edge"));
    let _user = stage.credentials.follow(&name("shop")).unwrap();
    stage.serves(Some(&old)).await;
    // Narrowed as far as the API server does it, one namespace, in small pages.
    let listed = stage.asked().await;
    assert!(
        listed.starts_with("/api/v1/namespaces/edge/secrets?"),
        "{listed}"
    );
    for part in [
        "limit=50",
        "labelSelector=mesh%3Dedge",
        "fieldSelector=type%21%3Dhelm.sh%2Frelease.v1%2Ctype%21%3Dkubernetes.io%2Fservice-account-token",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let watched = stage.asked().await;
    for part in [
        "watch=true",
        "resourceVersion=7",
        "timeoutSeconds=55",
        "labelSelector=",
    ] {
        assert!(watched.contains(part), "{part}: {watched}");
    }
    events.send(event("MODIFIED", &second)).unwrap();
    stage.serves(Some(&new)).await;
    events
        .send(event("MODIFIED", &secret("shop", &[("tls.crt", "junk")])))
        .unwrap();
    events.send(event("DELETED", &second)).unwrap();
    stage.serves(None).await;
    events.send(event("ADDED", &first)).unwrap();
    stage.serves(Some(&old)).await;
}

#[tokio::test]
async fn after_an_outage_everything_is_listed_again() {
    let ca = TestCa::new("cluster.local");
    let (first, old) = tls_secret("shop", &ca);
    let (second, new) = tls_secret("shop", &ca);
    let (events, script) = mpsc::unbounded_channel();
    let (_open, silent) = mpsc::unbounded_channel();
    let replies = vec![
        refusal(403, "secrets is forbidden"),
        list("7", &[&first]),
        Reply::Events(script),
        refusal(503, "away"),
        list("9", &[&second]),
        Reply::Events(silent),
    ];
    let stage = Stage::new(replies, None);
    let _user = stage.credentials.follow(&name("shop")).unwrap();
    stage
        .troubled(Some("list of secrets: secrets is forbidden (403)"))
        .await;
    stage.serves(Some(&old)).await;
    stage.troubled(None).await;
    // What was changed meanwhile is not to be had any more.
    let gone = json!({ "kind": "Status", "status": "Failure", "code": 410, "message": "too old", "reason": "Expired" });
    events
        .send(json!({ "type": "ERROR", "object": gone }))
        .unwrap();
    stage.serves(Some(&new)).await;
    stage.troubled(None).await;
    assert!(stage.ca.root_pem().contains("CERTIFICATE"));
}
