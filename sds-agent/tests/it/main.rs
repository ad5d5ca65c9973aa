//! The agent between a real CA (gRPC over TLS) and a real SDS client (gRPC over a Unix socket).

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

mod agent;
mod ca;
mod credentials;
mod delta;
mod drop;
mod files;
mod google;
mod operation;
mod process;
mod rest;
mod roots;
mod streams;
mod vault;
mod workload_api;

use std::{collections::BTreeSet, time::Duration};

use ca_core::{CertificateChain, PrivateKey, TrustBundle};
use ca_proto::envoy::service::discovery::v3::DiscoveryRequest;
use futures_util::future::join_all;
use tonic::{Code, Status};

use agent::{
    Agent, Home, build, check, checked_chain, checked_roots, client, node, read, request, secrets,
    soon,
};
use ca::{Behaviour, Ca};

#[tokio::test]
async fn certificate_and_roots_reach_the_client() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &["--secret-ttl", "90m"]);
    // As Envoy does: a stream for each name.
    let mut pair = agent.subscribe(&["default"]).await;
    let mut roots = agent.subscribe(&["ROOTCA"]).await;

    let chain = checked_chain(&pair.accept().await[0], &ca.roots);
    assert_eq!(chain.iter().count(), 1, "a root is not served");
    assert_eq!(checked_roots(&roots.accept().await[0]), ca.roots);
    assert!(
        pair.is_silent().await && roots.is_silent().await,
        "acceptance is not answered"
    );

    let [seen] = ca
        .seen()
        .try_into()
        .expect("one certificate serves all streams");
    assert_eq!(seen.authorization, "Bearer good-token");
    assert_eq!(seen.cluster, "Kubernetes");
    assert_eq!(seen.validity, 5400);
    assert_eq!(seen.metadata, None);
    assert_eq!(seen.certificate, None);
    assert!(!seen.timeout.is_empty(), "the CA learns our deadline");
    assert_eq!(agent.get("/readyz").await.0, 200);
    agent.stop().await;
}

#[tokio::test]
async fn a_signer_and_a_cluster_are_passed_on() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &["--cert-signer", "vault", "--cluster-id", "west"]);
    agent.subscribe(&["default"]).await.accept().await;
    let [seen] = ca.seen().try_into().unwrap();
    assert_eq!(
        seen.metadata.unwrap(),
        [("CertSigner".to_owned(), "vault".to_owned())].into()
    );
    assert_eq!(seen.cluster, "west");
}

#[tokio::test]
async fn certificates_of_a_few_seconds_are_renewed_in_time() {
    let ca = Ca::good();
    ca.behave(Behaviour::Good {
        lifetime: Duration::from_secs(3),
    });
    let agent = Agent::start(&ca, &[]);
    let mut both = agent.subscribe(&["default", "ROOTCA"]).await;
    let mut roots = agent.subscribe(&["ROOTCA"]).await;

    let [first_roots, first] = both
        .accept()
        .await
        .try_into()
        .expect("roots, then the pair");
    checked_roots(&first_roots);
    let mut serials = BTreeSet::from([checked_chain(&first, &ca.roots).leaf().serial()]);
    roots.accept().await;
    for _ in 0..3 {
        let [renewed] = both
            .accept()
            .await
            .try_into()
            .expect("the roots have not changed");
        serials.insert(checked_chain(&renewed, &ca.roots).leaf().serial());
        assert_eq!(agent.get("/readyz").await.0, 200);
    }
    assert_eq!(serials.len(), 4);
    assert!(roots.is_silent().await);
}

#[tokio::test]
async fn unknown_names_are_refused_and_others_still_served() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let status = agent.subscribe(&["foo"]).await.next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("\"foo\""), "{status}");
    checked_chain(
        &agent.subscribe(&["default"]).await.accept().await[0],
        &ca.roots,
    );
}

#[tokio::test]
async fn a_stream_from_before_the_first_certificate_is_answered_when_it_comes() {
    let mut ca = Ca::new(Behaviour::Good {
        lifetime: Duration::from_secs(3600),
    });
    let agent = Agent::start(&ca, &[]);
    let mut pair = agent.subscribe(&["default"]).await;
    let reason = agent
        .becomes("/readyz", |_, body| body.contains("cannot connect"))
        .await;
    assert!(reason.starts_with("no certificate yet"), "{reason}");
    assert_eq!(agent.get("/healthz").await.0, 200, "waiting is not ill");
    assert!(pair.is_silent().await);
    ca.switch_on();
    checked_chain(&pair.accept().await[0], &ca.roots);
}

#[tokio::test]
async fn a_certificate_outlives_its_ca_until_it_expires_and_comes_back_with_it() {
    let mut ca = Ca::good();
    ca.behave(Behaviour::Good {
        lifetime: Duration::from_secs(12),
    });
    let agent = Agent::start(&ca, &[]);
    let mut pair = agent.subscribe(&["default"]).await;
    let held = checked_chain(&pair.accept().await[0], &ca.roots);
    ca.switch_off().await;

    let ready = agent
        .becomes("/readyz", |_, body| body.contains("cannot connect"))
        .await;
    assert!(ready.starts_with("certificate until"), "{ready}");
    let newcomer = agent.subscribe(&["default"]).await.accept().await;
    assert_eq!(checked_chain(&newcomer[0], &ca.roots), held);

    let expired = agent.becomes("/readyz", |status, _| status == 503).await;
    assert!(
        expired.starts_with("the certificate expired at"),
        "{expired}"
    );
    assert!(
        agent.subscribe(&["default"]).await.is_silent().await,
        "nothing expired is served"
    );

    ca.switch_on();
    assert_ne!(checked_chain(&pair.accept().await[0], &ca.roots), held);
    agent.becomes("/readyz", |status, _| status == 200).await;
    let metrics = agent.get("/metrics").await.1;
    for name in ["num_failed_outgoing_requests", "num_outgoing_retries"] {
        let zero = format!("istio_agent_{name}{{request_type=\"csr\"}} 0");
        assert!(
            metrics.contains(name) && !metrics.contains(&zero),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn unfit_answers_are_never_published() {
    let unfit = [
        (Behaviour::OtherKey, "certified another key"),
        (Behaviour::OtherIdentity, "sa/admin"),
        (Behaviour::Expired, "expired at"),
        (Behaviour::OtherRoots, "does not lead to the roots"),
        (Behaviour::NoRoots, "has 1 elements"),
        (Behaviour::Garbage, "not a certificate"),
        (
            Behaviour::Refuse(Status::internal("Istio CA is not ready")),
            "Istio CA is not ready",
        ),
    ];
    join_all(unfit.map(|(behaviour, reason)| async move {
        let ca = Ca::good();
        ca.behave(behaviour);
        let agent = Agent::start(&ca, &[]);
        let mut both = agent.subscribe(&["default", "ROOTCA"]).await;
        let body = agent
            .becomes("/readyz", |_, body| body.contains(reason))
            .await;
        assert!(body.starts_with("no certificate yet"), "{body}");
        soon("another attempt", ca.asked(1)).await;
        assert!(both.is_silent().await, "{reason}");
        ca.behave(Behaviour::Good {
            lifetime: Duration::from_secs(3600),
        });
        checked_chain(&both.accept().await[1], &ca.roots);
    }))
    .await;
}

#[tokio::test]
async fn an_unfit_renewal_leaves_the_certificate_in_place() {
    let ca = Ca::good();
    ca.behave(Behaviour::Good {
        lifetime: Duration::from_secs(6),
    });
    let agent = Agent::start(&ca, &[]);
    let mut pair = agent.subscribe(&["default"]).await;
    let held = checked_chain(&pair.accept().await[0], &ca.roots);
    ca.behave(Behaviour::OtherKey);
    agent
        .becomes("/readyz", |_, body| body.contains("another key"))
        .await;
    assert!(pair.is_silent().await);
    let newcomer = agent.subscribe(&["default"]).await.accept().await;
    assert_eq!(checked_chain(&newcomer[0], &ca.roots), held);
}

#[tokio::test]
async fn a_corrected_token_and_a_corrected_root_are_picked_up() {
    let ca = Ca::good();
    let stranger = Ca::good();
    let home = Home::new(&ca);
    home.write_token("stale-token");
    let agent = Agent::start_in(home, &ca, &[]);
    let mut pair = agent.subscribe(&["default"]).await;
    agent
        .becomes("/readyz", |_, body| body.contains("Unauthenticated"))
        .await;

    let root = agent.home.path("root-cert.pem");
    std::fs::write(&root, stranger.roots.to_pem()).unwrap();
    agent
        .becomes("/readyz", |_, body| body.contains("cannot set up TLS"))
        .await;

    std::fs::write(&root, ca.roots.to_pem()).unwrap();
    agent.home.write_token("good-token");
    checked_chain(&pair.accept().await[0], &ca.roots);
}

#[tokio::test]
async fn files_follow_the_certificate() {
    let ca = Ca::good();
    ca.behave(Behaviour::Good {
        lifetime: Duration::from_secs(3),
    });
    let home = Home::new(&ca);
    let folder = home.path("certs");
    let agent = Agent::start_in(home, &ca, &["--output-dir", folder.to_str().unwrap()]);
    let mut serials = BTreeSet::new();
    // Nobody subscribes: files are enough of a reason to renew.
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    soon("three renewals", async {
        while serials.len() < 3 {
            ticks.tick().await;
            let current = folder.join("..data");
            let Ok(held) = std::fs::canonicalize(&current) else {
                continue;
            };
            let key = PrivateKey::from_pem(&read(&held, "key.pem")).unwrap();
            let chain = CertificateChain::from_pem(&read(&held, "cert-chain.pem")).unwrap();
            let roots = TrustBundle::from_pem(&read(&held, "root-cert.pem")).unwrap();
            assert_eq!(roots, ca.roots);
            check(&chain, &key, &roots);
            serials.insert(chain.leaf().serial());
        }
    })
    .await;
    let _home = agent.stop().await;
    assert!(folder.join("key.pem").exists(), "files outlive the agent");
}

/// Istio's agent asks without a pause then.
#[tokio::test]
async fn a_ratio_of_one_renews_again_and_again_and_leaves_the_ca_its_peace() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let folder = home.path("certs");
    let flags = [
        "--renewal-ratio",
        "1",
        "--renewal-jitter",
        "0",
        "--output-dir",
        folder.to_str().unwrap(),
    ];
    let started = tokio::time::Instant::now();
    let agent = Agent::start_in(home, &ca, &flags);
    let mut pair = agent.subscribe(&["default"]).await;
    let mut serials = BTreeSet::new();
    while serials.len() < 4 {
        let chain = checked_chain(&pair.accept().await[0], &ca.roots);
        serials.insert(chain.leaf().serial());
        soon("the file follows", async {
            let written = || std::fs::read(folder.join("cert-chain.pem")).unwrap_or_default();
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while CertificateChain::from_pem(&written()).ok().as_ref() != Some(&chain) {
                ticks.tick().await;
            }
        })
        .await;
    }
    let most = started.elapsed().as_millis() / 500 + 1;
    assert!(
        ca.seen().len() as u128 <= most,
        "{} requests",
        ca.seen().len()
    );
}

#[tokio::test]
async fn one_request_for_one_answer() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut client = agent.client().await;
    let wish = DiscoveryRequest {
        node: Some(node()),
        ..request(&["default"])
    };
    let answer = soon("an answer", client.fetch_secrets(wish))
        .await
        .unwrap()
        .into_inner();
    checked_chain(&secrets(&answer)[0], &ca.roots);
    let nothing = DiscoveryRequest {
        node: Some(node()),
        ..request(&[])
    };
    let status = client.fetch_secrets(nothing).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_renewal_can_be_asked_for() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let app = build(&home, &ca, &[]).unwrap();
    let renew_now = app.renew_now();
    let stop = sds_agent::Stop::new();
    let running = tokio::spawn(app.run(stop.clone()));
    soon("the first certificate", ca.asked(1)).await;
    renew_now.notify_one();
    soon("the renewal", ca.asked(1)).await;
    stop.cancel();
    soon("the agent stops", running).await.unwrap().unwrap();
}

#[tokio::test]
async fn stopping_ends_the_streams_and_the_next_agent_takes_over_the_socket() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut pair = agent.subscribe(&["default"]).await;
    pair.accept().await;
    let second = build(&agent.home, &ca, &[]).unwrap_err().to_string();
    assert!(
        second.contains("another server is already listening"),
        "{second}"
    );

    let home = agent.stop().await;
    assert!(pair.next().await.unwrap().is_none(), "a clean end");
    assert!(client(home.path("run/socket")).await.is_err());

    let agent = Agent::start_in(home, &ca, &[]);
    checked_chain(
        &agent.subscribe(&["default"]).await.accept().await[0],
        &ca.roots,
    );
}
