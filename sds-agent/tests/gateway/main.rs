//! An ingress gateway's agent beside a real API server: `cargo xtask interop kubernetes` brings one and runs these tests.
//!
//! With `kube-apiserver`, `etcd` and `envoy` at hand: `KUBEBUILDER_ASSETS=FOLDER ENVOY=FILE cargo test -p sds-agent --features gateway
//! --test gateway -- --ignored`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test cannot do ends it"
)]

mod access;
mod envoy;
mod formats;
mod outage;
mod pushes;
mod stage;

#[expect(dead_code, reason = "the agent's other tests use all of it")]
#[path = "../it/agent.rs"]
mod agent;
#[expect(dead_code, reason = "the agent's other tests use all of it")]
#[path = "../it/ca.rs"]
mod ca;
#[expect(dead_code, reason = "the server's tests use all of it")]
#[path = "../../../ca-server/tests/kubernetes/cluster.rs"]
mod cluster;
#[path = "../../../ca-server/tests/kubernetes/control_plane.rs"]
mod control_plane;
#[path = "../../../ca-server/tests/kubernetes/deadline.rs"]
mod deadline;
#[path = "../../../ca-server/tests/kubernetes/manifests.rs"]
mod manifests;
#[path = "../../../ca-server/tests/kubernetes/watched.rs"]
mod watched;
