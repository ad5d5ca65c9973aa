use ca_proto::{
    envoy::{
        config::core::v3::Node, extensions::transport_sockets::tls::v3::Secret as SecretMessage,
    },
    google::rpc,
};
use prost::Message as _;

use super::*;
use crate::{clock, sds::testing::Stage};

/// A client and the stream it talks on.
struct Stream {
    session: DeltaSession,
    stage: Stage,
}

impl Stream {
    /// With a certificate already there.
    fn open() -> Self {
        let mut stage = Stage::new();
        stage.rotate();
        Self::open_on(stage)
    }

    fn open_on(stage: Stage) -> Self {
        Self {
            session: DeltaSession::new(7, Catalogue::default()),
            stage,
        }
    }

    fn hear(&mut self, request: &DeltaDiscoveryRequest) -> Heard {
        self.session.hear(request).unwrap()
    }

    fn answer(&mut self) -> Option<DeltaDiscoveryResponse> {
        let shelf = self.stage.secrets.shelf();
        Some(self.session.answer(&shelf, clock::now())?.response)
    }

    /// Subscribes and takes the answer.
    fn subscribe(&mut self, names: &[&str]) -> DeltaDiscoveryResponse {
        assert_eq!(self.hear(&subscribe(names)), Heard::Subscribed);
        self.answer().unwrap()
    }
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node {
            id: "sidecar~10.0.0.1~cart.shop~".to_owned(),
            ..Node::default()
        }),
        type_url: SECRET_TYPE_URL.to_owned(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn unsubscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_unsubscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        response_nonce: response.nonce.clone(),
        ..unsubscribe(&[])
    }
}

fn nack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        error_detail: Some(rpc::Status {
            message: "bad key".to_owned(),
            ..rpc::Status::default()
        }),
        ..ack(response)
    }
}

/// As a client that comes back with what it got on an earlier stream.
fn come_back_with(response: &DeltaDiscoveryResponse, names: &[&str]) -> DeltaDiscoveryRequest {
    let held = response.resources.iter();
    DeltaDiscoveryRequest {
        initial_resource_versions: held
            .map(|resource| (resource.name.clone(), resource.version.clone()))
            .collect(),
        ..subscribe(names)
    }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response
        .resources
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}

#[test]
fn each_resource_has_its_name_and_its_version() {
    let mut stream = Stream::open();
    let response = stream.subscribe(&["default", "ROOTCA"]);
    assert_eq!(response.type_url, SECRET_TYPE_URL);
    assert!(!response.nonce.is_empty() && response.removed_resources.is_empty());
    assert_eq!(names(&response), ["ROOTCA", "default"], "roots first");
    for resource in &response.resources {
        let any = resource.resource.as_ref().unwrap();
        assert_eq!(any.type_url, SECRET_TYPE_URL);
        let inside = SecretMessage::decode(any.value.as_slice()).unwrap();
        assert_eq!(inside.name, resource.name);
        assert!(!resource.version.is_empty());
    }
    assert_eq!(stream.hear(&ack(&response)), Heard::Accepted);
    assert!(stream.answer().is_none(), "acceptance gets no answer");
}

#[test]
fn only_what_changed_is_pushed() {
    let mut stream = Stream::open();
    let first = stream.subscribe(&["default", "ROOTCA"]);
    stream.stage.rotate();
    let push = stream.answer().unwrap();
    assert_eq!(names(&push), ["default"]);
    assert_ne!(push.nonce, first.nonce);
    stream.stage.lineage.add_root();
    stream.stage.rotate();
    stream.stage.rotate();
    assert_eq!(names(&stream.answer().unwrap()), ["ROOTCA", "default"]);
    assert!(stream.answer().is_none());
}

#[test]
fn names_come_and_go_with_any_request() {
    let mut stream = Stream::open();
    let first = stream.subscribe(&["default"]);
    // Also with one that answers an older response: what it wishes is not said again.
    stream.stage.rotate();
    stream.answer().unwrap();
    let more = DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["ROOTCA".to_owned()],
        ..ack(&first)
    };
    assert_eq!(stream.hear(&more), Heard::Subscribed);
    assert_eq!(names(&stream.answer().unwrap()), ["ROOTCA"]);
    assert_eq!(
        stream.hear(&unsubscribe(&["default", "unheard-of"])),
        Heard::Unsubscribed
    );
    stream.stage.rotate();
    assert!(stream.answer().is_none());
}

#[test]
fn what_is_asked_for_again_is_sent_again() {
    let mut stream = Stream::open();
    let first = stream.subscribe(&["default"]);
    let second = stream.subscribe(&["default"]);
    assert_eq!(first.resources, second.resources);
    assert_ne!(first.nonce, second.nonce);
}

#[test]
fn a_client_that_comes_back_is_told_only_what_is_new_to_it() {
    let mut before = Stream::open();
    let held = before.subscribe(&["default", "ROOTCA"]);
    let Stream { mut stage, .. } = before;

    let mut stream = Stream::open_on(stage);
    let back = come_back_with(&held, &["default", "ROOTCA"]);
    assert_eq!(stream.hear(&back), Heard::Subscribed);
    assert!(stream.answer().is_none(), "it has everything");
    stage = stream.stage;

    stage.rotate();
    let mut stream = Stream::open_on(stage);
    stream.hear(&back);
    assert_eq!(names(&stream.answer().unwrap()), ["default"]);
}

#[test]
fn equal_contents_have_equal_versions_in_another_run_of_the_agent() {
    let mut before = Stream::open();
    let held = before.subscribe(&["ROOTCA"]);
    let mut restarted = Stage::new();
    restarted.lineage.roots = before.stage.lineage.roots.clone();
    let mut stream = Stream::open_on(restarted);
    stream.hear(&come_back_with(&held, &["ROOTCA"]));
    assert!(
        stream.answer().is_none(),
        "what is not there yet is not removed"
    );
    let (publisher, secrets) = crate::secrets::testing::channel();
    publisher.publish_roots(&stream.stage.lineage.roots, clock::now());
    let shelf = secrets.shelf();
    assert!(stream.session.answer(&shelf, clock::now()).is_none());
}

#[test]
fn only_the_first_request_says_what_a_client_has() {
    let mut stream = Stream::open();
    let held = stream.subscribe(&["default"]);
    stream.hear(&come_back_with(&held, &["default"]));
    assert_eq!(names(&stream.answer().unwrap()), ["default"]);
}

#[test]
fn names_that_stand_for_nothing_are_removed_and_others_served() {
    let mut stream = Stream::open();
    let response = stream.subscribe(&["foo", "default", "*"]);
    assert_eq!(names(&response), ["default"]);
    assert_eq!(response.removed_resources, ["*", "foo"]);
    assert!(stream.answer().is_none());
    // Nobody waits for an answer about a name that is given up.
    stream.hear(&DeltaDiscoveryRequest {
        resource_names_unsubscribe: vec!["bar".to_owned()],
        ..unsubscribe(&[])
    });
    assert!(stream.answer().is_none());
}

#[test]
fn refusals_get_no_answer_and_the_next_certificate_is_the_cure() {
    let mut stream = Stream::open();
    let response = stream.subscribe(&["default"]);
    let refused = Heard::Refused("bad key".to_owned());
    assert_eq!(stream.hear(&nack(&response)), refused);
    assert!(stream.answer().is_none());
    stream.stage.rotate();
    assert_eq!(names(&stream.answer().unwrap()), ["default"]);
}

#[test]
fn a_refusal_as_the_first_request_or_of_a_foreign_response_is_harmless() {
    let foreign = DeltaDiscoveryResponse {
        nonce: "8-1".to_owned(),
        ..DeltaDiscoveryResponse::default()
    };
    let mut stream = Stream::open();
    let early = DeltaDiscoveryRequest {
        node: subscribe(&[]).node,
        ..nack(&foreign)
    };
    assert_eq!(stream.hear(&early), Heard::Refused("bad key".to_owned()));
    assert!(stream.answer().is_none());
    assert_eq!(stream.hear(&ack(&foreign)), Heard::Stale);
    stream.subscribe(&["default"]);
}

#[test]
fn the_first_request_must_say_who_asks_and_all_must_ask_for_secrets() {
    let anonymous = DeltaDiscoveryRequest {
        node: None,
        ..subscribe(&["default"])
    };
    let mut stream = Stream::open();
    assert_eq!(stream.session.hear(&anonymous), Err(BadRequest::NoNode));
    let clusters = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        ..subscribe(&["default"])
    };
    let error = stream.session.hear(&clusters).unwrap_err();
    assert!(error.to_string().contains("Cluster"));
}

#[test]
fn before_the_first_certificate_a_client_waits() {
    let mut stream = Stream::open_on(Stage::new());
    stream.hear(&subscribe(&["default"]));
    assert!(stream.answer().is_none());
    stream.stage.rotate();
    assert_eq!(names(&stream.answer().unwrap()), ["default"]);
}

#[test]
fn how_far_a_client_has_come_with_the_roots() {
    let mut stream = Stream::open();
    assert_eq!(stream.session.ledger().roots_answered(), None);
    stream.hear(&subscribe(&["ROOTCA"]));
    assert_eq!(stream.session.ledger().roots_answered(), Some(None));
    let response = stream.answer().unwrap();
    assert_eq!(stream.session.ledger().roots_answered(), Some(None));
    stream.hear(&ack(&response));
    let version = response.resources[0].version.as_str().into();
    let answered = Some(Some(&version));
    assert_eq!(stream.session.ledger().roots_answered(), answered);
}
