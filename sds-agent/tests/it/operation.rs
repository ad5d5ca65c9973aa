//! How an agent is watched and fenced in.

use std::time::Duration;

use ca_proto::{envoy::service::discovery::v3::DiscoveryRequest, google::rpc};
use sds_agent::AgentStatus;
use tokio::net::UnixStream;

use crate::{
    agent::{Agent, Home, checked_chain, client, request, soon},
    ca::{Behaviour, Ca},
};

#[tokio::test]
async fn the_debug_page_says_who_has_what() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut pair = agent.subscribe(&["default", "file-root:nowhere.pem"]).await;
    let response = pair.next().await.unwrap().unwrap();
    let unanswered = agent
        .becomes("/debug/sds", |_, body| body.contains("    default  sent "))
        .await;
    for fact in [
        "next attempt       20",
        "streams (1)",
        "\"sidecar~127.0.0.1~cart.shop~local\"  state of the world",
        "    file-root:nowhere.pem  waits",
        "  file-root:nowhere.pem  REFUSED nowhere.pem: missing",
    ] {
        assert!(unanswered.contains(fact), "no {fact:?} in\n{unanswered}");
    }
    assert!(!unanswered.contains("PRIVATE"));

    let refusal = DiscoveryRequest {
        response_nonce: response.nonce.clone(),
        error_detail: Some(rpc::Status {
            message: "bad key".to_owned(),
            ..rpc::Status::default()
        }),
        ..request(&["default"])
    };
    pair.requests.send(refusal).await.unwrap();
    agent
        .becomes("/debug/sds", |_, body| body.contains(": \"bad key\""))
        .await;
    agent
        .counts("istio_agent_pilot_total_xds_rejects", "1.0")
        .await;
    // What it refused is not sent again; the next one is.
    assert!(pair.is_silent().await);
    agent.renew();
    checked_chain(&pair.accept().await[0], &ca.roots);
    agent
        .becomes("/debug/sds", |_, body| body.contains("    default  has "))
        .await;
    drop(pair);
    agent
        .becomes("/debug/sds", |_, body| body.contains("streams (0)"))
        .await;
}

#[tokio::test]
async fn status_tells_readiness_and_details() {
    let mut ca = Ca::new(Behaviour::Good {
        lifetime: Duration::from_secs(3600),
    });
    let agent = Agent::start(&ca, &[]);
    let admin = agent.admin;
    let ask = || tokio::task::spawn_blocking(move || AgentStatus::ask(admin).unwrap());
    let early = soon("a status", ask()).await.unwrap();
    assert!(!early.ready && early.report.starts_with("not ready: no certificate yet"));
    ca.switch_on();
    agent.becomes("/readyz", |status, _| status == 200).await;
    let late = soon("a status", ask()).await.unwrap();
    assert!(late.ready, "{}", late.report);
    assert!(late.report.starts_with("ready: certificate until 20"));
    assert!(
        late.report.contains("\n  default  version "),
        "{}",
        late.report
    );
}

#[tokio::test]
async fn processes_that_are_not_allowed_get_nothing() {
    let ca = Ca::good();
    let (own, _) = UnixStream::pair().unwrap();
    let user = own.peer_cred().unwrap().uid();
    let allowed = Agent::start(&ca, &["--allow-uid", &user.to_string()]);
    let pair = allowed.subscribe(&["default"]).await.accept().await;
    checked_chain(&pair[0], &ca.roots);

    let other = (user + 1).to_string();
    let closed = Agent::start(&ca, &["--allow-uid", &other]);
    let reached = match client(closed.socket()).await {
        Ok(mut client) => client.fetch_secrets(request(&["default"])).await.is_ok(),
        Err(_) => false,
    };
    assert!(!reached);
    let metrics = closed
        .becomes("/metrics", |_, body| {
            body.contains("sds_agent_refused_peers_total") && !body.contains("peers_total 0")
        })
        .await;
    assert!(metrics.contains("sds_agent_streams 0"));
}

#[tokio::test]
async fn metrics_have_the_names_that_dashboards_know() {
    let ca = Ca::good();
    let agent = Agent::start_in(Home::new(&ca), &ca, &[]);
    agent.subscribe(&["default"]).await.accept().await;
    let metrics = agent.get("/metrics").await.1;
    for name in [
        "istio_agent_outgoing_latency{request_type=\"csr\"}",
        "istio_agent_num_outgoing_requests{request_type=\"csr\"} 1",
        "istio_agent_cert_expiry_seconds{resource_name=\"default\"} 3",
        "istio_agent_startup_duration_seconds ",
        "sds_agent_next_renewal_timestamp_seconds 1",
        "sds_agent_last_success_timestamp_seconds 1",
    ] {
        assert!(metrics.contains(name), "no {name} in\n{metrics}");
    }
}
