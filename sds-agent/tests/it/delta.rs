//! Incremental discovery.

use std::time::Duration;

use ca_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use crate::{
    agent::{Agent, checked_chain, checked_roots, delta_secrets, subscribe},
    ca::{Behaviour, Ca},
};

/// As a client that has this from an earlier stream.
fn held(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    let resources = response.resources.iter();
    DeltaDiscoveryRequest {
        initial_resource_versions: resources
            .map(|resource| (resource.name.clone(), resource.version.clone()))
            .collect(),
        ..subscribe(&["default", "ROOTCA"])
    }
}

#[tokio::test]
async fn a_client_gets_what_it_subscribes_to_and_then_what_changes() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut stream = agent.delta(subscribe(&["default", "ROOTCA", "foo"])).await;
    let mut first = stream.accept().await;
    if first.resources.is_empty() {
        // What does not exist needs no certificate to be said.
        assert_eq!(first.removed_resources, ["foo"]);
        first = stream.accept().await;
    }
    let [roots, pair] = delta_secrets(&first).try_into().unwrap();
    assert_eq!(checked_roots(&roots), ca.roots);
    let chain = checked_chain(&pair, &ca.roots);
    assert!(stream.is_silent().await);

    agent.renew();
    let push = stream.accept().await;
    let [renewed] = delta_secrets(&push).try_into().unwrap();
    assert_ne!(checked_chain(&renewed, &ca.roots), chain);

    let drop_pair = DeltaDiscoveryRequest {
        resource_names_unsubscribe: vec!["default".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    stream.requests.send(drop_pair).await.unwrap();
    assert!(stream.is_silent().await);
    let mut other = agent.delta(subscribe(&["default"])).await;
    other.accept().await;
    agent.renew();
    other.accept().await;
    assert!(stream.is_silent().await, "it no longer wants the pair");
}

#[tokio::test]
async fn a_client_that_comes_back_is_told_only_what_is_new_to_it_also_by_another_run() {
    let mut ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut stream = agent.delta(subscribe(&["default", "ROOTCA"])).await;
    let first = stream.accept().await;
    assert!(agent.delta(held(&first)).await.is_silent().await);

    // The agent restarts without its CA. What the client has must survive that.
    let home = agent.stop().await;
    ca.switch_off().await;
    let agent = Agent::start_in(home, &ca, &[]);
    let mut stream = agent.delta(held(&first)).await;
    assert!(stream.is_silent().await, "nothing is removed");
    ca.switch_on();
    ca.behave(Behaviour::Good {
        lifetime: Duration::from_secs(3600),
    });
    let [pair] = delta_secrets(&stream.accept().await).try_into().unwrap();
    checked_chain(&pair, &ca.roots);
}
