//! An API server that goes and comes.

use std::sync::Arc;

use crate::{
    cluster::Cluster,
    stage::{Stage, assert_pair},
};

#[tokio::test]
#[ignore = "needs an API server: cargo xtask interop kubernetes"]
async fn without_the_api_server_the_known_is_served_and_afterwards_what_has_changed() {
    let mut stage = Stage::in_cluster(Arc::new(Cluster::start().await)).await;
    let agent = stage.agent(&[]);
    let first = stage.pair();
    stage.write_tls("shop", &first).await;
    let mut stream = agent.subscribe(&["shop"]).await;
    assert_pair(&stream.accept().await[0], "shop", &first);

    stage.cluster_mut().stop_api();
    let away = |_, page: &str| page.contains("1 secrets  FAILED");
    agent.becomes("/debug/sds", away).await;
    // To those who come now, and under another of its names too: that is judged anew.
    for name in ["shop", "kubernetes://shop"] {
        let served = agent.subscribe(&[name]).await.accept().await;
        assert_pair(&served[0], name, &first);
    }
    assert_eq!(agent.get("/readyz").await.0, 200);

    stage.cluster_mut().start_api().await;
    let second = stage.pair();
    stage.write_tls("shop", &second).await;
    assert_pair(&stream.accept().await[0], "shop", &second);
    let back = |_, page: &str| page.contains("1 secrets\n");
    agent.becomes("/debug/sds", back).await;
    agent.stop().await;
}
