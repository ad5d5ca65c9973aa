//! A CA that moves to another root.

use std::time::Duration;

use ca_core::{KeyKind, PrivateKey, crypto::AWS_LC_RS, testing::TestCa};

use crate::{
    agent::{Agent, checked_chain, checked_roots, soon},
    ca::{Behaviour, Ca},
};

#[tokio::test]
async fn both_roots_are_served_and_written_while_certificates_of_both_are_about() {
    let ca = Ca::good();
    let agent = {
        let home = crate::agent::Home::new(&ca);
        let folder = home.path("certs");
        Agent::start_in(home, &ca, &["--output-dir", folder.to_str().unwrap()])
    };
    let mut roots = agent.subscribe(&["ROOTCA"]).await;
    let mut pair = agent.subscribe(&["default"]).await;
    assert_eq!(checked_roots(&roots.accept().await[0]), ca.roots);
    checked_chain(&pair.accept().await[0], &ca.roots);

    let new = ca.move_to_another_root();
    agent.renew();
    let both = checked_roots(&roots.accept().await[0]);
    assert_eq!(both, new.merge(&ca.roots));
    checked_chain(&pair.accept().await[0], &new);
    let file = agent.home.path("certs");
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    soon("both roots in the file", async {
        // Streams may be served before the files are there.
        let written = || std::fs::read(file.join("root-cert.pem")).unwrap_or_default();
        while written() != both.to_pem().as_bytes() {
            ticks.tick().await;
        }
    })
    .await;

    agent.renew();
    checked_chain(&pair.accept().await[0], &new);
    assert!(roots.is_silent().await, "both stay");
}

#[tokio::test]
async fn the_old_root_goes_when_the_last_certificate_of_it_has_ended() {
    let ca = Ca::good();
    ca.behave(Behaviour::Good {
        lifetime: Duration::from_secs(4),
    });
    let agent = Agent::start(&ca, &[]);
    let mut roots = agent.subscribe(&["ROOTCA"]).await;
    roots.accept().await;
    let new = ca.move_to_another_root();
    ca.behave(Behaviour::Good {
        lifetime: Duration::from_secs(3600),
    });
    agent.renew();
    assert_eq!(
        checked_roots(&roots.accept().await[0]),
        new.merge(&ca.roots)
    );
    assert_eq!(checked_roots(&roots.accept().await[0]), new);
}

#[tokio::test]
async fn a_certificate_of_a_new_root_waits_until_all_streams_have_taken_the_root() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut pair = agent.subscribe(&["default"]).await;
    let mut roots = agent.subscribe(&["ROOTCA"]).await;
    let mut others = agent.subscribe(&["ROOTCA"]).await;
    pair.accept().await;
    roots.accept().await;
    others.accept().await;

    ca.move_to_another_root();
    agent.renew();
    roots.accept().await;
    let unanswered = others.next().await.unwrap().unwrap();
    assert!(pair.is_silent().await, "one has not answered yet");
    others.say_yes_to(&unanswered).await;
    pair.accept().await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_to_new_roots_is_not_waited_for_long() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut pair = agent.subscribe(&["default"]).await;
    let _mute = agent.subscribe(&["ROOTCA"]).await;
    pair.accept().await;
    let new = ca.move_to_another_root();
    agent.renew();
    checked_chain(&pair.accept().await[0], &new);
}

#[tokio::test]
async fn a_ca_may_have_an_rsa_key() {
    let ca = Ca::good();
    let key = PrivateKey::generate_with(KeyKind::Rsa2048, &AWS_LC_RS).unwrap();
    let roots = ca.move_to(TestCa::with_key("cluster.local", key));
    let agent = Agent::start(&ca, &[]);
    let both = agent.subscribe(&["default", "ROOTCA"]).await.accept().await;
    assert_eq!(checked_roots(&both[0]), roots);
    checked_chain(&both[1], &roots);
}
