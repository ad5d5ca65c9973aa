//! Many streams, and those that do not behave.

use std::time::Duration;

use ca_proto::envoy::{config::core::v3::Node, service::discovery::v3::DiscoveryRequest};
use futures_util::future::join_all;
use prost::Message as _;
use tonic::{Code, Status};

use crate::{
    agent::{Agent, Stream, checked_chain, node, request, soon},
    ca::{Behaviour, Ca},
};

#[tokio::test]
async fn two_hundred_streams_of_one_connection_follow_every_renewal() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut client = agent.client().await;
    let mut streams = Vec::new();
    for number in 0..200 {
        let name = ["default", "ROOTCA"][number % 2];
        streams.push(Stream::open(&mut client, &[name]).await);
    }
    join_all(streams.iter_mut().map(Stream::accept)).await;
    for _ in 0..3 {
        agent.renew();
        let pairs = streams.iter_mut().step_by(2);
        let pushed = join_all(pairs.map(Stream::accept)).await;
        let chain = checked_chain(&pushed[0][0], &ca.roots);
        for secrets in &pushed {
            assert_eq!(checked_chain(&secrets[0], &ca.roots), chain);
        }
    }
    let metrics = agent.get("/metrics").await.1;
    assert!(metrics.contains("sds_agent_streams 200"), "{metrics}");
    drop(streams);
    agent
        .becomes("/metrics", |_, body| body.contains("sds_agent_streams 0"))
        .await;
}

/// In Istio's agent each of those who wait has a try of its own.
#[tokio::test]
async fn all_who_wait_share_each_attempt_and_its_failure() {
    let ca = Ca::good();
    ca.behave(Behaviour::Refuse(Status::unauthenticated("not yet")));
    let agent = Agent::start(&ca, &[]);
    let mut client = agent.client().await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(Stream::open(&mut client, &["default"]).await);
    }
    // Attempts are half a second apart at least.
    let waiting = tokio::time::Instant::now();
    let before = ca.seen().len();
    soon("another attempt", ca.asked(2)).await;
    let most = waiting.elapsed().as_millis() / 500 + 2;
    let asked = ca.seen().len() - before;
    assert!(asked as u128 <= most, "{asked} requests");
    ca.behave(Behaviour::Good {
        lifetime: Duration::from_secs(3600),
    });
    let answers = join_all(streams.iter_mut().map(Stream::accept)).await;
    let chain = checked_chain(&answers[0][0], &ca.roots);
    for answer in &answers {
        assert_eq!(checked_chain(&answer[0], &ca.roots), chain);
    }
}

/// A stock Envoy lists its extensions: 61 KB, and more with each release.
#[tokio::test]
async fn a_first_message_of_many_kilobytes_is_heard() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut client = agent.client().await;
    let wish = DiscoveryRequest {
        node: Some(Node {
            client_features: (0..8000)
                .map(|number| format!("envoy.feature.{number}"))
                .collect(),
            ..node()
        }),
        ..request(&["default"])
    };
    assert!(wish.encoded_len() > 100_000);
    let mut stream = Stream::open_with(&mut client, wish).await;
    checked_chain(&stream.accept().await[0], &ca.roots);
}

#[tokio::test]
async fn clients_that_do_not_read_hold_up_nobody_on_their_connection() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut client = agent.client().await;
    let mut stalled = Vec::new();
    for _ in 0..3 {
        stalled.push(Stream::open(&mut client, &["default", "ROOTCA"]).await);
    }
    let mut reader = Stream::open(&mut client, &["default"]).await;
    let mut before = checked_chain(&reader.accept().await[0], &ca.roots);
    // More than fits into the window that all streams of a connection share.
    for _ in 0..40 {
        agent.renew();
        let renewed = checked_chain(&reader.accept().await[0], &ca.roots);
        assert_ne!(renewed, before);
        before = renewed;
    }
    // Who reads at last finds a few old responses, and is asked to come again.
    let [mut late, ..] = <[Stream; 3]>::try_from(stalled).ok().unwrap();
    let mut read = 0;
    let end = loop {
        match late.next().await {
            Ok(response) => assert!(response.is_some()),
            Err(status) => break status,
        }
        read += 1;
    };
    assert_eq!((end.code(), read), (Code::ResourceExhausted, 8));
    let mut again = Stream::open(&mut client, &["default"]).await;
    assert_eq!(checked_chain(&again.accept().await[0], &ca.roots), before);
}
