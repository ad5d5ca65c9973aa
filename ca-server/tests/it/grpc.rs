//! What the listener for certificate requests offers beside them, and what it bounds.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use ca_core::Certificate;
use ca_proto::istio::v1::auth::istio_ca_service_client::IstioCaServiceClient;
use ca_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use ca_proto::istio::v1::auth::{CsrRequest, IstioCertificateRequest};
use prost_types::FileDescriptorProto;
use serde_json::json;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::client::{Client, key_and_csr};
use crate::issuer::TokenKey;
use crate::running::{DEADLINE, Running};

#[tokio::test]
async fn health_is_told_for_the_server_and_for_its_service() {
    let ca = Running::start(&[]);
    let client = Client::connect(&ca, None, None).await;
    let mut health = HealthClient::new(client.channel);
    let mut check = async |service: &str| {
        let service = service.to_owned();
        let answer = health.check(HealthCheckRequest { service }).await?;
        Ok::<_, Status>(answer.into_inner().status())
    };
    // The first word is said when the listener is open already.
    for service in ["", "istio.v1.auth.IstioCertificateService"] {
        tokio::time::timeout(DEADLINE, async {
            while check(service).await.ok() != Some(ServingStatus::Serving) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("health in time");
    }
    assert_eq!(check("other").await.unwrap_err().code(), Code::NotFound);
}

// With a thread for the client, which has to answer the server's farewell.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_health_learns_of_the_end_and_does_not_hold_it_up() {
    let ca = Running::start(&["--shutdown-duration", "1m"]);
    let client = Client::connect(&ca, None, None).await;
    let mut health = HealthClient::new(client.channel);
    let service = String::new();
    let watched = health.watch(HealthCheckRequest { service }).await;
    let mut watched = watched.unwrap().into_inner();
    let mut told = async || watched.message().await.unwrap().map(|word| word.status());
    assert_eq!(told().await, Some(ServingStatus::Serving));
    let start = Instant::now();
    let ended = tokio::task::spawn_blocking(move || ca.signal("TERM").0);
    let mut last = None;
    while let Some(status) = told().await {
        last = Some(status);
    }
    assert_eq!(last, Some(ServingStatus::NotServing));
    assert!(ended.await.unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// What grpcurl of old and the library of Python ask for.
#[tokio::test]
async fn reflection_answers_in_its_older_version_too() {
    use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;

    let ca = Running::start(&[]);
    let client = Client::connect(&ca, None, None).await;
    let requests = tokio_stream::iter([ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    }]);
    let mut answers = ServerReflectionClient::new(client.channel)
        .server_reflection_info(requests)
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("not a list");
    };
    let certificates = "istio.v1.auth.IstioCertificateService";
    assert!(
        list.service
            .iter()
            .any(|service| service.name == certificates)
    );
}

#[tokio::test]
async fn reflection_describes_the_services_that_are_there() {
    for (flags, with_old) in [(&[][..], false), (&["--node-agent-service"][..], true)] {
        let ca = Running::start(flags);
        let client = Client::connect(&ca, None, None).await;
        let mut reflection = ServerReflectionClient::new(client.channel);
        let mut ask = async |question| {
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(question),
            };
            let requests = tokio_stream::iter([request]);
            let mut answers = reflection
                .server_reflection_info(requests)
                .await
                .unwrap()
                .into_inner();
            let answer = answers.message().await.unwrap().unwrap();
            answer.message_response.unwrap()
        };
        let MessageResponse::ListServicesResponse(list) =
            ask(MessageRequest::ListServices(String::new())).await
        else {
            panic!("not a list");
        };
        let names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
        let has = |name: &str| names.iter().any(|other| other == name);
        assert!(has("istio.v1.auth.IstioCertificateService"), "{names:?}");
        assert!(has("grpc.health.v1.Health"), "{names:?}");
        assert_eq!(has("istio.v1.auth.IstioCAService"), with_old, "{names:?}");

        let symbol = "istio.v1.auth.IstioCertificateService".to_owned();
        let MessageResponse::FileDescriptorResponse(files) =
            ask(MessageRequest::FileContainingSymbol(symbol)).await
        else {
            panic!("not a file");
        };
        let file: FileDescriptorProto =
            prost::Message::decode(files.file_descriptor_proto[0].as_slice()).unwrap();
        assert_eq!(file.name(), "security/v1alpha1/ca.proto");
        assert_eq!(file.package(), "istio.v1.auth");
        let [method] = &file.service[0].method[..] else {
            panic!("{:?}", file.service[0]);
        };
        assert_eq!(method.name(), "CreateCertificate");
        assert_eq!(
            method.input_type(),
            ".istio.v1.auth.IstioCertificateRequest"
        );
        assert_eq!(
            method.output_type(),
            ".istio.v1.auth.IstioCertificateResponse"
        );
        assert!(!method.client_streaming() && !method.server_streaming());
    }
}

#[tokio::test]
async fn old_node_agents_are_served_where_that_is_wanted() {
    let ask = async |ca: &Running, csr: &[u8], minutes| {
        let client = Client::connect(ca, None, None).await;
        let mut request = Request::new(CsrRequest {
            csr_pem: csr.to_vec(),
            requested_ttl_minutes: minutes,
            ..CsrRequest::default()
        });
        let token = format!("Bearer {}", ca.token(&[]));
        request
            .metadata_mut()
            .insert("authorization", token.parse().unwrap());
        let answer = IstioCaServiceClient::new(client.channel)
            .handle_csr(request)
            .await?;
        Ok::<_, Status>(answer.into_inner())
    };
    let (_, csr) = key_and_csr(&["spiffe://cluster.local/ns/kube-system/sa/admin"]);

    let ca = Running::start(&[]);
    let refused = ask(&ca, csr.as_bytes(), 60).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);

    let ca = Running::start(&["--node-agent-service"]);
    let answer = ask(&ca, csr.as_bytes(), 30).await.unwrap();
    assert!(answer.is_approved && answer.status.is_none());
    assert!(answer.cert_chain.is_empty(), "no root, and nothing between");
    let leaf = Certificate::from_pem(&answer.signed_cert).unwrap();
    let names: Vec<_> = leaf.names().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["spiffe://cluster.local/ns/shop/sa/cart"]);
    let life = (leaf.not_after() - leaf.not_before()).unsigned_abs();
    assert_eq!(life, Duration::from_secs(30 * 60 + 120));

    let refused = ask(&ca, b"junk", 30).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = ask(&ca, csr.as_bytes(), i32::MAX).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("greater than the max"));
}

/// An issuer that never answers holds requests up. They end with the caller's patience, and their places become free.
#[tokio::test]
async fn an_address_has_its_bound_and_a_deadline_frees_the_place() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("https://localhost:{}", silent.local_addr().unwrap().port());
    let ca = Running::start(&["--token-issuer", &issuer, "--max-requests-per-address", "1"]);
    let token = TokenKey::new("key").token(&issuer, &json!({}));
    let client = Client::connect(&ca, None, None).await;
    let (_, csr) = key_and_csr(&[]);
    let ask = async |patience| {
        let mut request = Request::new(IstioCertificateRequest {
            csr: csr.clone(),
            ..IstioCertificateRequest::default()
        });
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        request.set_timeout(patience);
        let mut client = IstioCertificateServiceClient::new(client.channel.clone());
        client.create_certificate(request).await.unwrap_err().code()
    };
    let short = Duration::from_millis(300);
    let (first, second) = tokio::join!(ask(short), ask(short));
    let mut codes = [first, second];
    codes.sort_by_key(|code| *code as i32);
    // `Cancelled` is what tonic says at a deadline, on either side.
    assert_eq!(codes, [Code::Cancelled, Code::ResourceExhausted]);
    // The place is free again, as soon as the server has seen the end of the first.
    tokio::time::timeout(DEADLINE, async {
        while ask(short).await != Code::Cancelled {}
    })
    .await
    .expect("the place in time");
}

// With threads for the client, whose request does not end while the server does.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_finish_keeps_the_server_no_longer_than_was_said() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("https://localhost:{}", silent.local_addr().unwrap().port());
    let ca = Running::start(&["--token-issuer", &issuer, "--shutdown-duration", "1s"]);
    let token = TokenKey::new("key").token(&issuer, &json!({}));
    let client = Client::connect(&ca, None, Some(token)).await;
    let (_, csr) = key_and_csr(&[]);
    let asking = tokio::spawn(async move { client.ask(&csr, 0).await.map(drop) });
    tokio::time::timeout(DEADLINE, async {
        while !ca.get("/metrics").1.contains("\nmesh_ca_in_flight 1\n") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the request in time");
    let start = Instant::now();
    let (status, _folder) = tokio::task::spawn_blocking(move || ca.signal("TERM"))
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    let took = start.elapsed();
    let expected = Duration::from_secs(1)..Duration::from_secs(5);
    assert!(expected.contains(&took), "{took:?}");
    assert!(asking.await.unwrap().is_err());
}

/// What is turned away before it is read is counted and on the record, like everything else.
#[tokio::test]
async fn a_reply_that_is_not_taken_keeps_its_place_and_whoever_finds_none_is_on_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit.log");
    let ca = Running::start(&[
        "--max-requests-per-address",
        "1",
        "--audit-log",
        audit.to_str().unwrap(),
    ]);
    let token = ca.token(&[]);
    // Asks, and lets nothing in that HTTP/2 has a window for: the head of the reply, and not its body.
    let shut = Client::connect_with(&ca, None, Some(token.clone()), |endpoint| {
        endpoint.initial_stream_window_size(0)
    })
    .await;
    let (_, csr) = key_and_csr(&[]);
    let own = csr.clone();
    let kept = tokio::spawn(async move { shut.ask(&own, 0).await.map(drop) });
    let metric = |line: &str| ca.get("/metrics").1.lines().any(|found| found == line);
    tokio::time::timeout(DEADLINE, async {
        while !metric("citadel_server_success_cert_issuance_count 1") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("a certificate in time");

    let client = Client::connect(&ca, None, Some(token)).await;
    let refused = client.ask(&csr, 0).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(
        refused.message(),
        "too many requests from this address are under way"
    );
    assert!(metric("citadel_server_csr_count 2"));
    assert!(metric("mesh_ca_turned_away_by_address 1") && metric("mesh_ca_turned_away 0"));
    let debug: serde_json::Value = serde_json::from_str(&ca.get("/debug").1).unwrap();
    assert_eq!(debug["requests"]["turned_away_by_address"], 1);
    let records = std::fs::read_to_string(&audit).unwrap();
    let last: serde_json::Value = serde_json::from_str(records.lines().last().unwrap()).unwrap();
    assert_eq!(last["outcome"], "refused");
    let reason = "too many requests from this address are under way (--max-requests-per-address 1)";
    assert_eq!(last["reason"], reason);
    assert!(last["peer"].as_str().unwrap().starts_with("127.0.0.1:"));

    // Whoever gives up gives its place back.
    kept.abort();
    tokio::time::timeout(DEADLINE, async {
        while client.ask(&csr, 0).await.is_err() {}
    })
    .await
    .expect("the place in time");
}
