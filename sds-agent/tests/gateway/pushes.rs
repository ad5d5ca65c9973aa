//! What happens to a Secret is pushed, or refused with a reason.

use ca_core::testing::now;

use crate::{
    agent::subscribe,
    stage::{Pair, Stage, assert_pair},
};

const NAME: &str = "kubernetes://shop";

#[tokio::test]
#[ignore = "needs an API server: cargo xtask interop kubernetes"]
async fn each_change_of_a_secret_is_pushed_and_its_end_is_not() {
    let stage = Stage::new().await;
    let agent = stage.agent(&[]);
    let mut early = agent.subscribe(&[NAME]).await;
    agent
        .becomes("/debug/sds", |_, page| {
            page.contains("secret") && page.contains("not found")
        })
        .await;
    assert!(early.is_silent().await, "there is nothing yet");

    let first = stage.pair();
    stage.write_tls("shop", &first).await;
    assert_pair(&early.accept().await[0], NAME, &first);
    let second = stage.pair();
    stage.write_tls("shop", &second).await;
    assert_pair(&early.accept().await[0], NAME, &second);

    stage.delete("shop").await;
    let gone = |_, page: &str| page.contains("not found");
    agent.becomes("/debug/sds", gone).await;
    assert!(early.is_silent().await, "who has it keeps it");
    let mut late = agent.subscribe(&[NAME]).await;
    assert!(late.is_silent().await, "nobody new gets it");
    let third = stage.pair();
    stage.write_tls("shop", &third).await;
    for stream in [&mut early, &mut late] {
        assert_pair(&stream.accept().await[0], NAME, &third);
    }
    // What is the agent's own is served beside it, on the same socket.
    let own = agent.subscribe(&["default"]).await.accept().await;
    assert_eq!(own[0].name, "default");
    agent.stop().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask interop kubernetes"]
async fn what_is_broken_or_over_is_refused_with_its_reason_and_the_last_good_value_stays() {
    let stage = Stage::new().await;
    let good = stage.pair();
    stage.write_tls("shop", &good).await;
    let agent = stage.agent(&[]);
    let mut stream = agent.subscribe(&[NAME]).await;
    assert_pair(&stream.accept().await[0], NAME, &good);

    let other = stage.pair();
    let [over, early] =
        [-3, 3].map(|later| Pair::that_begins(now() + time::Duration::hours(later)));
    let mut refused = 0;
    for (data, reason) in [
        (
            [&*good.chain, &*other.key],
            "does not belong to the certificate",
        ),
        (["junk", &good.key], "the certificate does not read"),
        ([&good.chain, "junk"], "the key does not read"),
        ([&over.chain, &over.key], "the certificate expired at"),
        (
            [&early.chain, &early.key],
            "the certificate is not valid before",
        ),
        (["", ""], "but they were empty"),
    ] {
        let data = [("tls.crt", data[0]), ("tls.key", data[1])];
        stage.write("shop", "kubernetes.io/tls", &data).await;
        refused += 1;
        let line = format!("{NAME}  REFUSED ");
        let told = agent
            .becomes("/debug/sds", |_, page| {
                page.contains(&line) && page.contains(reason)
            })
            .await;
        assert!(!told.contains("PRIVATE KEY"), "{told}");
        assert!(stream.is_silent().await, "{reason}");
        // Also whoever comes now gets what was good last.
        let served = agent.subscribe(&[NAME]).await.accept().await;
        assert_pair(&served[0], NAME, &good);
    }
    let metric = "sds_agent_credential_refusals_total";
    agent.counts(metric, &refused.to_string()).await;

    let fixed = stage.pair();
    stage.write_tls("shop", &fixed).await;
    assert_pair(&stream.accept().await[0], NAME, &fixed);
    let cured = |_, page: &str| !page.contains("REFUSED");
    agent.becomes("/debug/sds", cured).await;
    agent.stop().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask interop kubernetes"]
async fn a_pair_that_is_early_is_served_when_its_time_has_come() {
    let stage = Stage::new().await;
    let agent = stage.agent(&[]);
    let mut stream = agent.subscribe(&[NAME]).await;
    let pair = Pair::that_begins(now() + time::Duration::seconds(4));
    stage.write_tls("shop", &pair).await;
    let early = |_, page: &str| page.contains("not valid before");
    agent.becomes("/debug/sds", early).await;
    assert_pair(&stream.accept().await[0], NAME, &pair);
    agent.stop().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask interop kubernetes"]
async fn incremental_clients_get_each_change_too() {
    let stage = Stage::new().await;
    let agent = stage.agent(&[]);
    let mut stream = agent.delta(subscribe(&[NAME, "shop-cacert"])).await;
    let (pair, root) = (stage.pair(), stage.ca.root_pem());
    let data = [
        ("tls.crt", &*pair.chain),
        ("tls.key", &*pair.key),
        ("ca.crt", &*root),
    ];
    stage.write("shop", "kubernetes.io/tls", &data).await;
    let mut names = Vec::new();
    while names.len() < 2 {
        let response = stream.accept().await;
        names.extend(response.resources.into_iter().map(|found| found.name));
    }
    names.sort();
    assert_eq!(names, [NAME, "shop-cacert"]);
    stage.write_tls("shop", &stage.pair()).await;
    let changed = stream.accept().await;
    assert_eq!(changed.resources[0].name, NAME);
    assert!(
        stream.is_silent().await,
        "a CA that is gone is not taken away"
    );
    agent.stop().await;
}
