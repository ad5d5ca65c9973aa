//! The server beside a real API server: `cargo xtask interop kubernetes` brings one and runs these tests.
//!
//! With `kube-apiserver` and `etcd` at hand: `KUBEBUILDER_ASSETS=FOLDER CERT_MANAGER_CRDS=FOLDER cargo test -p ca-server --test
//! kubernetes -- --ignored`. Nobody plays a controller here: what Kubernetes' own controllers would do (sign, schedule, collect) is
//! either done by a test, which says so, or not done.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test cannot do ends it"
)]

mod callers;
mod cluster;
mod control_plane;
mod deadline;
mod deployment;
mod manifests;
mod permissions;
mod registration;
mod registration_server;
mod roots;
#[expect(dead_code, reason = "the other tests of the program use all of it")]
#[path = "../it/running.rs"]
mod running;
mod server;
#[expect(dead_code, reason = "the benchmark uses all of it")]
mod stand_in;
mod state;
mod watched;
