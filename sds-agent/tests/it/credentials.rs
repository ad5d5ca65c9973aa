//! What the agent shows to its CA.

use std::{collections::BTreeMap, fs, time::Duration};

use ca_core::{SubjectName, testing::now};
use tonic::Status;

use crate::{
    agent::{Agent, Home, checked_chain, soon},
    ca::{Behaviour, Ca},
};

const IDENTITY: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// Tokens that expired in 2001 and will in 2286. Their signatures are nobody's.
const EXPIRED: &str = "e30.eyJleHAiOjEwMDAwMDAwMDB9.c2ln";
const FRESH: &str = "e30.eyJleHAiOjk5OTk5OTk5OTl9.c2ln";

/// Writes a key and a certificate that was made 100 s ago for so long.
fn provision(home: &Home, ca: &Ca, lifetime: Duration) -> String {
    let names = [SubjectName::from(ca.hand().id("shop", "cart"))];
    let past = now() - Duration::from_secs(100);
    let (key, chain) = ca.hand().identity(&names, lifetime, past);
    let folder = home.path("provisioned");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("key.pem"), key.to_pkcs8_pem().as_bytes()).unwrap();
    fs::write(folder.join("cert-chain.pem"), chain.to_pem()).unwrap();
    fs::write(folder.join("root-cert.pem"), ca.roots.to_pem()).unwrap();
    folder.to_str().unwrap().to_owned()
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_provisioned_certificate_is_shown_beside_the_token() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let folder = provision(&home, &ca, HOUR);
    let contents = || {
        let files = fs::read_dir(&folder).unwrap();
        let file = |file: std::io::Result<fs::DirEntry>| {
            let file = file.unwrap();
            (file.file_name(), fs::read(file.path()).unwrap())
        };
        files.map(file).collect::<BTreeMap<_, _>>()
    };
    let provisioned = contents();
    let agent = Agent::start_in(home, &ca, &["--prov-cert", &folder]);
    let mut pair = agent.subscribe(&["default"]).await;
    pair.accept().await;
    agent.renew();
    pair.accept().await;
    for seen in ca.seen() {
        assert_eq!(seen.certificate.as_deref(), Some(IDENTITY));
        assert_eq!(seen.authorization, "Bearer good-token");
    }
    assert_eq!(ca.seen().len(), 2);
    assert_eq!(contents(), provisioned, "it is left alone");
}

#[tokio::test]
async fn an_expired_certificate_is_not_shown_and_the_token_used() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let folder = provision(&home, &ca, Duration::from_secs(60));
    let agent = Agent::start_in(home, &ca, &["--prov-cert", &folder]);
    agent.subscribe(&["default"]).await.accept().await;
    let [seen] = ca.seen().try_into().unwrap();
    assert_eq!(seen.certificate, None);
}

#[tokio::test]
async fn a_certificate_alone_is_enough() {
    let ca = Ca::good();
    ca.take_certificates_only();
    let home = Home::new(&ca);
    let folder = provision(&home, &ca, HOUR);
    // A token that is no use is not sent; none at all is fine too.
    home.write_token(EXPIRED);
    let agent = Agent::start_in(home, &ca, &["--prov-cert", &folder]);
    agent.subscribe(&["default"]).await.accept().await;
    let home = agent.stop().await;
    let flags = ["--prov-cert", &folder, "--token-file", ""];
    let agent = Agent::start_replacing(home, &ca, &flags);
    agent.subscribe(&["default"]).await.accept().await;
    for seen in ca.seen() {
        assert_eq!(
            (&*seen.authorization, seen.certificate.as_deref()),
            ("", Some(IDENTITY))
        );
    }
}

#[tokio::test]
async fn a_certificate_that_comes_later_is_picked_up() {
    let ca = Ca::good();
    ca.take_certificates_only();
    let home = Home::new(&ca);
    let folder = home.path("provisioned").to_str().unwrap().to_owned();
    let agent = Agent::start_in(home, &ca, &["--prov-cert", &folder]);
    let mut pair = agent.subscribe(&["default"]).await;
    soon("the first request", ca.asked(1)).await;
    assert!(pair.is_silent().await);
    provision(&agent.home, &ca, HOUR);
    checked_chain(&pair.accept().await[0], &ca.roots);
}

#[tokio::test]
async fn a_certificate_or_token_that_is_replaced_ends_the_wait_after_a_failure() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    home.write_token("stale-token");
    let folder = home.path("provisioned").to_str().unwrap().to_owned();
    let agent = Agent::start_in(home, &ca, &["--prov-cert", &folder]);
    let mut pair = agent.subscribe(&["default"]).await;
    // The next wait is of four seconds at least: longer than a look at the files takes.
    soon("four attempts", ca.asked(4)).await;
    let shortly = Duration::from_millis(3500);
    agent.home.write_token("another-token");
    tokio::time::timeout(shortly, ca.asked(1)).await.unwrap();
    provision(&agent.home, &ca, HOUR);
    let secrets = tokio::time::timeout(shortly, pair.accept()).await.unwrap();
    checked_chain(&secrets[0], &ca.roots);
}

/// A virtual machine: a token for the first certificate, and from then on each certificate for the
/// next, over restarts too.
#[tokio::test]
async fn a_machine_renews_with_the_certificate_that_it_wrote() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let folder = home.path("certs").to_str().unwrap().to_owned();
    let flags = [
        "--output-dir",
        &folder,
        "--prov-cert",
        &folder,
        "--mounted-certs",
        &folder,
    ];
    let agent = Agent::start_in(home, &ca, &flags);
    agent.subscribe(&["default"]).await.accept().await;
    agent
        .becomes("/healthz", |_, _| {
            fs::exists(format!("{folder}/key.pem")).unwrap()
        })
        .await;
    let home = agent.stop().await;

    ca.take_certificates_only();
    home.write_token("bogus-token");
    let agent = Agent::start_in(home, &ca, &flags);
    let mut pair = agent.subscribe(&["default"]).await;
    pair.accept().await;
    agent.renew();
    pair.accept().await;
    let seen: Vec<_> = ca.seen().into_iter().map(|seen| seen.certificate).collect();
    let shown = Some(IDENTITY.to_owned());
    assert_eq!(seen, [None, shown.clone(), shown]);
}

#[tokio::test]
async fn an_expired_token_is_said_so_and_not_sent() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    home.write_token(EXPIRED);
    let agent = Agent::start_in(home, &ca, &[]);
    let mut pair = agent.subscribe(&["default"]).await;
    agent
        .becomes("/readyz", |_, body| {
            body.contains("expired at 2001-09-09T01:46:40Z")
        })
        .await;
    assert!(ca.seen().is_empty(), "it is sent to nobody");
    agent.home.write_token(FRESH);
    soon("a request", ca.asked(1)).await;
    assert_eq!(ca.seen()[0].authorization, format!("Bearer {FRESH}"));
    agent.home.write_token("good-token");
    checked_chain(&pair.accept().await[0], &ca.roots);
}

#[tokio::test]
async fn headers_go_along_and_cannot_pass_for_ours() {
    let ca = Ca::good();
    let headers = [
        "--ca-header",
        "BAZ==baz",
        "--ca-header",
        "authorization=Basic eA==",
    ];
    let agent = Agent::start(&ca, &headers);
    agent.subscribe(&["default"]).await.accept().await;
    let [seen] = ca.seen().try_into().unwrap();
    assert_eq!(seen.headers["baz"], "=baz");
    assert_eq!(seen.authorization, "Bearer good-token");
}

#[tokio::test]
async fn what_may_pass_is_tried_again_at_once_and_what_will_not_is_not() {
    for (status, tries) in [
        (Status::unavailable("busy"), 5),
        (Status::resource_exhausted("busy"), 5),
        (Status::unknown("busy"), 1),
        (Status::permission_denied("busy"), 1),
    ] {
        let ca = Ca::good();
        ca.behave(Behaviour::Refuse(status));
        let agent = Agent::start(&ca, &[]);
        let mut pair = agent.subscribe(&["default"]).await;
        agent
            .becomes("/readyz", |_, body| body.contains("busy"))
            .await;
        // On a slow machine the next attempt may have begun.
        let attempts = attempts(&agent).await;
        let seen = ca.seen().len();
        let expected = attempts * tries..=(attempts + 1) * tries;
        assert!(
            expected.contains(&seen),
            "{seen} requests in {attempts} attempts"
        );
        ca.behave(Behaviour::Good { lifetime: HOUR });
        checked_chain(&pair.accept().await[0], &ca.roots);
    }
}

/// How often the CA has been asked, quick repetitions not counted.
async fn attempts(agent: &Agent) -> usize {
    let (_, metrics) = agent.get("/metrics").await;
    let name = "istio_agent_num_outgoing_requests{request_type=\"csr\"} ";
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    value.trim_end_matches(".0").parse().unwrap()
}

#[tokio::test]
async fn the_roots_of_the_system_do_not_vouch_for_a_private_ca() {
    let ca = Ca::good();
    let flags = ["--ca-root", "SYSTEM"];
    let agent = Agent::start_replacing(Home::new(&ca), &ca, &flags);
    agent
        .becomes("/readyz", |_, body| body.contains("cannot set up TLS"))
        .await;
    assert!(ca.seen().is_empty());
}
