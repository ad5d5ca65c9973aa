use ca_proto::{
    envoy::{
        config::core::v3::{DataSource, Node, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{Secret, secret::Type},
    },
    google::rpc,
};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::{
    clock,
    sds::{ledger::HEALTH_TYPE_URL, testing::Stage},
};

/// A client and the stream it talks on.
struct Stream {
    session: Session,
    stage: Stage,
}

impl Stream {
    /// With a certificate already there.
    fn open() -> Self {
        let mut stream = Self::open_too_early();
        stream.rotate();
        stream
    }

    /// Before the first certificate.
    fn open_too_early() -> Self {
        Self {
            session: Session::new(7, Catalogue::default()),
            stage: Stage::new(),
        }
    }

    fn rotate(&mut self) {
        self.stage.rotate();
    }

    fn hear(&mut self, request: &DiscoveryRequest) -> Heard {
        self.session.hear(request).unwrap()
    }

    /// What the client gets, if anything.
    fn answer(&mut self) -> Option<DiscoveryResponse> {
        let shelf = self.stage.secrets.shelf();
        Some(self.session.answer(&shelf, clock::now())?.response)
    }

    /// Subscribes and takes the answer.
    fn subscribe(&mut self, names: &[&str]) -> DiscoveryResponse {
        assert_eq!(self.hear(&request(names)), Heard::Subscribed);
        self.answer().unwrap()
    }
}

fn request(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(Node {
            id: "sidecar~10.0.0.1~cart.shop~".to_owned(),
            ..Node::default()
        }),
        resource_names: names.iter().map(ToString::to_string).collect(),
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    }
}

/// As Envoy does: no node after the first request.
fn ack(response: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        node: None,
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        ..request(names)
    }
}

fn nack(response: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: String::new(),
        error_detail: Some(rpc::Status {
            message: "bad key".to_owned(),
            ..rpc::Status::default()
        }),
        ..ack(response, names)
    }
}

fn names(response: &DiscoveryResponse) -> Vec<String> {
    secrets(response)
        .into_iter()
        .map(|secret| secret.name)
        .collect()
}

fn secrets(response: &DiscoveryResponse) -> Vec<Secret> {
    let unpack = |any: &prost_types::Any| {
        assert_eq!(any.type_url, SECRET_TYPE_URL);
        Secret::decode(any.value.as_slice()).unwrap()
    };
    response.resources.iter().map(unpack).collect()
}

fn bytes(source: Option<DataSource>) -> Vec<u8> {
    let Some(Specifier::InlineBytes(bytes)) = source.unwrap().specifier else {
        panic!("not inline");
    };
    bytes
}

#[test]
fn a_response_has_what_envoy_needs() {
    let mut stream = Stream::open();
    let response = stream.subscribe(&["default", "ROOTCA"]);
    assert_eq!(response.type_url, SECRET_TYPE_URL);
    assert!(!response.nonce.is_empty() && response.version_info.ends_with("/1"));
    let [roots, pair] = secrets(&response).try_into().unwrap();
    let current = stream.stage.workload.unwrap();

    let Some(Type::TlsCertificate(pair)) = pair.r#type else {
        panic!("no key pair")
    };
    assert_eq!(
        bytes(pair.certificate_chain),
        current.secret.chain_pem().as_bytes()
    );
    assert_eq!(bytes(pair.private_key), current.secret.key_pem().as_bytes());
    let Some(Type::ValidationContext(roots)) = roots.r#type else {
        panic!("no roots")
    };
    assert_eq!(bytes(roots.trusted_ca), current.roots.to_pem().as_bytes());
}

// The rows of the decision table.

#[test]
fn refusals_get_no_answer_and_do_not_count_as_accepted() {
    let mut stream = Stream::open();
    let response = stream.subscribe(&["default"]);
    let refused = Heard::Refused("bad key".to_owned());
    assert_eq!(stream.hear(&nack(&response, &["default"])), refused);
    assert!(stream.answer().is_none());
    // The next certificate is the cure.
    stream.rotate();
    assert_eq!(names(&stream.answer().unwrap()), ["default"]);
}

#[test]
fn a_refusal_may_bring_new_names() {
    let mut stream = Stream::open();
    let response = stream.subscribe(&["default"]);
    stream.hear(&nack(&response, &["default", "ROOTCA"]));
    assert_eq!(names(&stream.answer().unwrap()), ["ROOTCA"]);
}

#[test]
fn a_refusal_as_the_first_request_is_harmless() {
    let mut stream = Stream::open();
    let foreign = DiscoveryResponse {
        nonce: "other".to_owned(),
        ..DiscoveryResponse::default()
    };
    let early = DiscoveryRequest {
        node: request(&[]).node,
        ..nack(&foreign, &["default"])
    };
    assert_eq!(stream.hear(&early), Heard::Refused("bad key".to_owned()));
    assert!(stream.answer().is_none());
    assert_eq!(names(&stream.subscribe(&["default"])), ["default"]);
}

#[test]
fn a_refusal_after_unsubscribing_is_harmless() {
    let mut stream = Stream::open();
    let response = stream.subscribe(&["default"]);
    assert_eq!(stream.hear(&ack(&response, &[])), Heard::Unsubscribed);
    assert_eq!(
        stream.hear(&nack(&response, &["default"])),
        Heard::Refused("bad key".to_owned())
    );
    assert!(stream.answer().is_none());
}

#[test]
fn a_refusal_of_an_older_response_changes_nothing() {
    let mut stream = Stream::open();
    let old = stream.subscribe(&["default"]);
    stream.rotate();
    let new = stream.answer().unwrap();
    assert_eq!(
        stream.hear(&nack(&old, &["default"])),
        Heard::Refused("bad key".to_owned())
    );
    assert!(stream.answer().is_none());
    assert_eq!(stream.hear(&ack(&new, &["default"])), Heard::Accepted);
}

#[test]
fn no_names_means_unsubscribe() {
    let mut stream = Stream::open();
    let response = stream.subscribe(&["default"]);
    assert_eq!(stream.hear(&ack(&response, &[])), Heard::Unsubscribed);
    stream.rotate();
    assert!(stream.answer().is_none());
    // Also as the very first request.
    assert_eq!(Stream::open().hear(&request(&[])), Heard::Unsubscribed);
}

#[test]
fn without_a_nonce_all_names_are_answered_each_time() {
    let mut stream = Stream::open();
    let first = stream.subscribe(&["default"]);
    let second = stream.subscribe(&["default"]);
    assert_eq!(names(&second), ["default"]);
    assert_ne!(first.nonce, second.nonce);
    assert_eq!(
        names(&stream.subscribe(&["ROOTCA", "default"])),
        ["ROOTCA", "default"]
    );
}

#[test]
fn a_reconnecting_client_is_answered_whatever_it_says_it_has() {
    let mut before = Stream::open();
    let old = before.subscribe(&["default"]);
    // Envoy repeats the version without the nonce; others repeat both.
    for nonce in ["", &old.nonce, "6-1"] {
        let again = DiscoveryRequest {
            version_info: old.version_info.clone(),
            response_nonce: nonce.to_owned(),
            ..request(&["default"])
        };
        let mut stream = Stream::open();
        assert_eq!(stream.hear(&again), Heard::Subscribed);
        assert_eq!(names(&stream.answer().unwrap()), ["default"]);
    }
}

#[test]
fn old_nonces_are_stale() {
    let mut stream = Stream::open();
    let old = stream.subscribe(&["default"]);
    stream.rotate();
    let new = stream.answer().unwrap();
    assert_eq!(
        stream.hear(&ack(&old, &["default", "ROOTCA"])),
        Heard::Stale
    );
    assert!(stream.answer().is_none());
    // What it wanted comes again with the request about the latest response.
    assert_eq!(
        stream.hear(&ack(&new, &["default", "ROOTCA"])),
        Heard::Accepted
    );
    assert_eq!(names(&stream.answer().unwrap()), ["ROOTCA"]);
}

#[test]
fn acceptance_gets_no_answer() {
    let mut stream = Stream::open();
    let response = stream.subscribe(&["default"]);
    assert_eq!(stream.hear(&ack(&response, &["default"])), Heard::Accepted);
    assert!(stream.answer().is_none());
}

#[test]
fn dropped_names_get_no_answer_and_are_pushed_no_more() {
    let mut stream = Stream::open();
    let response = stream.subscribe(&["default", "ROOTCA"]);
    stream.hear(&ack(&response, &["ROOTCA"]));
    assert!(stream.answer().is_none());
    stream.rotate();
    assert!(stream.answer().is_none());
}

#[test]
fn only_added_names_are_answered() {
    let mut stream = Stream::open();
    let response = stream.subscribe(&["default"]);
    stream.hear(&ack(&response, &["default", "ROOTCA"]));
    assert_eq!(names(&stream.answer().unwrap()), ["ROOTCA"]);
}

// Pushes.

#[test]
fn a_new_certificate_is_pushed_to_those_who_watch_it() {
    let mut pair = Stream::open();
    pair.subscribe(&["default"]);
    let mut roots = Stream::open();
    roots.subscribe(&["ROOTCA"]);
    for stream in [&mut pair, &mut roots] {
        stream.rotate();
    }
    let push = pair.answer().unwrap();
    assert_eq!(names(&push), ["default"]);
    assert!(push.version_info.ends_with("/2"));
    assert!(roots.answer().is_none(), "the roots are the same");
}

#[test]
fn new_roots_come_before_the_new_certificate() {
    let mut stream = Stream::open();
    stream.subscribe(&["default", "ROOTCA"]);
    stream.stage.lineage.add_root();
    stream.rotate();
    assert_eq!(names(&stream.answer().unwrap()), ["ROOTCA", "default"]);
}

#[test]
fn changes_while_a_client_does_not_listen_become_one_push() {
    let mut stream = Stream::open();
    stream.subscribe(&["default", "ROOTCA"]);
    stream.stage.lineage.add_root();
    stream.rotate();
    stream.rotate();
    stream.rotate();
    let push = stream.answer().unwrap();
    assert_eq!(names(&push), ["ROOTCA", "default"]);
    assert!(push.version_info.ends_with("/4"));
    assert!(stream.answer().is_none());
}

#[test]
fn before_the_first_certificate_a_client_waits_and_is_then_answered_once() {
    let mut stream = Stream::open_too_early();
    assert_eq!(stream.hear(&request(&["default"])), Heard::Subscribed);
    assert!(stream.answer().is_none());
    stream.rotate();
    assert_eq!(names(&stream.answer().unwrap()), ["default"]);
    assert!(stream.answer().is_none());
}

#[test]
fn an_expired_pair_is_served_no_more_and_the_roots_still_are() {
    let mut stream = Stream::open();
    stream.hear(&request(&["default", "ROOTCA"]));
    let end = stream.stage.workload.as_ref().unwrap().secret.not_after();
    let shelf = stream.stage.secrets.shelf();
    let answer = stream.session.answer(&shelf, end).unwrap();
    assert_eq!(names(&answer.response), ["ROOTCA"]);
    assert!(stream.session.answer(&shelf, end).is_none());
}

// What ends a stream.

#[test]
fn the_first_request_must_say_who_asks() {
    for node in [None, Some(Node::default())] {
        let mut stream = Stream::open();
        let anonymous = DiscoveryRequest {
            node,
            ..request(&["default"])
        };
        assert_eq!(stream.session.hear(&anonymous), Err(BadRequest::NoNode));
    }
}

#[test]
fn unknown_names_are_refused_by_name_and_get_no_key() {
    for name in [
        "foo",
        "",
        "Default",
        "rootca",
        "kubernetes://x",
        "file-cert:a",
    ] {
        let mut stream = Stream::open();
        let error = stream
            .session
            .hear(&request(&["default", name]))
            .unwrap_err();
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        assert!(stream.answer().is_none());
    }
    // Also when they come later.
    let mut stream = Stream::open();
    let response = stream.subscribe(&["default"]);
    assert!(
        stream
            .session
            .hear(&ack(&response, &["default", "foo"]))
            .is_err()
    );
}

#[test]
fn types_other_than_secrets_are_refused_but_none_is_fine() {
    let mut stream = Stream::open();
    let implied = DiscoveryRequest {
        type_url: String::new(),
        ..request(&["default"])
    };
    assert_eq!(stream.hear(&implied), Heard::Subscribed);
    let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let wrong = DiscoveryRequest {
        type_url: cluster.to_owned(),
        ..request(&["default"])
    };
    let error = stream.session.hear(&wrong).unwrap_err();
    assert!(error.to_string().contains(cluster));
}

#[test]
fn health_reports_are_skipped_and_introduce_nobody() {
    let mut stream = Stream::open();
    let health = DiscoveryRequest {
        type_url: HEALTH_TYPE_URL.to_owned(),
        ..request(&[])
    };
    assert_eq!(stream.hear(&health), Heard::Health);
    let anonymous = DiscoveryRequest {
        node: None,
        ..request(&["default"])
    };
    assert_eq!(stream.session.hear(&anonymous), Err(BadRequest::NoNode));
}

#[test]
fn a_name_said_twice_is_one_name() {
    let mut stream = Stream::open();
    assert_eq!(
        names(&stream.subscribe(&["default", "default"])),
        ["default"]
    );
}

// Whatever a client does.

/// One thing that happens on a stream.
#[derive(Clone, Debug)]
enum Event {
    /// A request with these names, about the response so many back (none: no nonce).
    Request {
        names: Vec<&'static str>,
        about: Option<usize>,
        refused: bool,
    },
    Rotate,
    AddRoot,
}

fn event() -> impl Strategy<Value = Event> {
    let names = prop::sample::subsequence(vec!["default", "ROOTCA"], 0..=2);
    let about = prop::option::of(0..3_usize);
    prop_oneof![
        4 => (names, about, any::<bool>())
            .prop_map(|(names, about, refused)| Event::Request { names, about, refused }),
        2 => Just(Event::Rotate),
        1 => Just(Event::AddRoot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A client is sent only what its last heeded request named, each response has a nonce of its
    /// own, and once a response is out nothing more is due.
    #[test]
    fn a_client_gets_what_it_asked_for_and_nothing_twice(
        events in prop::collection::vec(event(), 0..30),
    ) {
        let mut stream = Stream::open();
        let mut sent: Vec<DiscoveryResponse> = Vec::new();
        let mut wanted: Vec<&str> = Vec::new();
        for event in events {
            match event {
                Event::Rotate => stream.rotate(),
                Event::AddRoot => stream.stage.lineage.add_root(),
                Event::Request { names, about, refused } => {
                    let about = about.and_then(|back| sent.iter().rev().nth(back));
                    let nonce = about.map(|response| response.nonce.clone()).unwrap_or_default();
                    let error_detail = refused.then(rpc::Status::default);
                    let latest = sent.last().is_some_and(|response| response.nonce == nonce);
                    let subscribed = stream.session.subscription.is_some();
                    stream.hear(&DiscoveryRequest {
                        response_nonce: nonce.clone(),
                        error_detail,
                        ..request(&names)
                    });
                    let heeded = if names.is_empty() || !subscribed {
                        subscribed || !refused
                    } else {
                        latest || (nonce.is_empty() && !refused)
                    };
                    if heeded {
                        wanted = names;
                    }
                }
            }
            if let Some(response) = stream.answer() {
                for name in names(&response) {
                    prop_assert!(wanted.contains(&name.as_str()), "{name} of {wanted:?}");
                }
                prop_assert!(sent.iter().all(|earlier| earlier.nonce != response.nonce));
                sent.push(response);
            }
            prop_assert!(stream.answer().is_none());
        }
    }
}
