//! The CA's state in a Secret that replicas share: who makes it, who changes it, who takes the place of whom.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use ca_core::testing::TestCa;
use ca_core::{Certificate, TrustBundle};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::deadline::{eventually, within};
use crate::server::{Ask, Server, ask};

const ISTIOS_ROOT: &str = include_str!("../../../ca-core/testdata/istio/root.pem");
const ISTIOS_KEY: &str = include_str!("../../../ca-core/testdata/istio/root-key.pem");

/// A namespace with the access that we ship, for a test with servers of its own.
struct Place {
    cluster: Arc<Cluster>,
    namespace: String,
    kubeconfig: std::path::PathBuf,
}

impl Place {
    async fn new(cluster: Arc<Cluster>) -> Self {
        let namespace = cluster.namespace("mesh").await;
        let kubeconfig = cluster.install(&namespace).await;
        Self {
            cluster,
            namespace,
            kubeconfig,
        }
    }

    /// These tests look at the state alone.
    async fn server(&self, flags: &[&str]) -> Server {
        let flags = [&["--publish-roots", "false"][..], flags].concat();
        Server::start(&self.kubeconfig, &self.namespace, &flags).await
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.cluster.admin(), &self.namespace)
    }

    async fn secret(&self, name: &str) -> Secret {
        within("Secret", self.secrets().get(name)).await.unwrap()
    }

    async fn has_none(&self, name: &str) -> bool {
        let found = within("Secret", self.secrets().get_opt(name)).await;
        found.unwrap().is_none()
    }

    async fn create(&self, name: &str, kind: &str, data: &[(&str, &str)]) -> Secret {
        let data = data
            .iter()
            .map(|(name, text)| ((*name).to_owned(), ByteString((*text).into())))
            .collect();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.into()),
                ..ObjectMeta::default()
            },
            type_: Some(kind.into()),
            data: Some(data),
            ..Secret::default()
        };
        let secrets = self.secrets();
        within("Secret", secrets.create(&PostParams::default(), &secret))
            .await
            .unwrap()
    }

    async fn put(&self, name: &str, texts: &[(&str, &str)]) {
        let data: BTreeMap<_, _> = texts
            .iter()
            .map(|(name, text)| (*name, ByteString((*text).into())))
            .collect();
        let patch = json!({ "data": data });
        let secrets = self.secrets();
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let patched = secrets.patch(name, &params, &patch);
        within("Secret", patched).await.unwrap();
    }

    /// A token that needs no API server to be judged, once the server has seen its pod.
    async fn token(&self) -> String {
        let workload = self
            .cluster
            .workload(&self.namespace, "cart", "node-1")
            .await;
        self.cluster.token(&workload, &["istio-ca"]).await
    }
}

fn text(secret: &Secret, name: &str) -> String {
    let data = secret.data.as_ref().unwrap();
    String::from_utf8(data[name].0.clone()).unwrap()
}

fn report(server: &Server) -> Value {
    let (code, body) = server.get("/debug");
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn leads(server: &Server) -> bool {
    report(server)["cluster"]["lease"]["leads"] == true
}

fn stage(server: &Server) -> String {
    let report = report(server);
    report["ca"]["rotation"]["stage"].as_str().unwrap().into()
}

async fn until(what: &str, server: &Server, is_so: impl Fn(&Server) -> bool) {
    let attempt = async || match is_so(server) {
        true => Ok(()),
        false => Err(format!("{:#}\n{}", report(server), server.log())),
    };
    eventually(what, attempt).await;
}

/// An operator's order, on the server's machine.
pub(crate) fn rotate(server: &Server, step: &str) -> Result<String, String> {
    let root = server.announced("root certificate");
    let output = Command::new(env!("CARGO_BIN_EXE_ca-server"))
        .args(["rotate", step, "--data-dir"])
        .arg(Path::new(&root).parent().unwrap())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

fn roots_of(pem: &str) -> TrustBundle {
    TrustBundle::from_pem(pem.as_bytes()).unwrap()
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn replicas_that_race_for_the_root_end_with_one() {
    let cluster = Cluster::shared().await;
    for _ in 0..8 {
        let place = Place::new(Arc::clone(&cluster)).await;
        let (a, b, c) = tokio::join!(place.server(&[]), place.server(&[]), place.server(&[]));
        let secret = place.secret("istio-ca-secret").await;
        assert_eq!(secret.type_.as_deref(), Some("istio.io/ca-root"));
        let names: Vec<_> = secret.data.as_ref().unwrap().keys().collect();
        let istios = [
            "ca-cert.pem",
            "ca-key.pem",
            "cert-chain.pem",
            "key.pem",
            "root-cert.pem",
        ];
        assert_eq!(names, istios);
        assert_eq!(text(&secret, "cert-chain.pem"), "");
        let mut created = 0;
        for server in [&a, &b, &c] {
            assert_eq!(server.root_pem(), text(&secret, "ca-cert.pem"));
            created += server.log().matches("new root created").count();
        }
        assert_eq!(created, 1);
        let leaders = || [&a, &b, &c].iter().filter(|server| leads(server)).count();
        let attempt = async || match leaders() {
            1 => Ok(()),
            count => Err(format!("{count} leaders")),
        };
        eventually("leader", attempt).await;
    }
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn istios_root_is_taken_over_unchanged_and_renewed_with_the_same_key() {
    let place = Place::new(Cluster::shared().await).await;
    let data = [
        ("ca-cert.pem", ISTIOS_ROOT),
        ("ca-key.pem", ISTIOS_KEY),
        ("root-cert.pem", ISTIOS_ROOT),
        ("cert-chain.pem", ""),
        ("key.pem", ""),
        ("of-others", "stays"),
    ];
    let before = place
        .create("istio-ca-secret", "istio.io/ca-root", &data)
        .await;
    let server = place.server(&[]).await;
    server.until_ready().await;
    until("leader", &server, leads).await;
    let token = place.token().await;
    let chain = server.sign(Ask::new(&token)).await.unwrap();
    assert_eq!(chain.last().unwrap(), ISTIOS_ROOT);
    assert_eq!(place.secret("istio-ca-secret").await, before);

    rotate(&server, "renew").unwrap();
    let after = place.secret("istio-ca-secret").await;
    assert_eq!(after.type_, before.type_);
    assert_eq!(text(&after, "ca-key.pem"), ISTIOS_KEY);
    assert_eq!(text(&after, "of-others"), "stays");
    let renewed = Certificate::from_pem(text(&after, "ca-cert.pem").as_bytes()).unwrap();
    let old = Certificate::from_pem(ISTIOS_ROOT.as_bytes()).unwrap();
    assert_eq!(renewed.public_key(), old.public_key());
    assert_eq!(renewed.subject_der(), old.subject_der());
    let roots = roots_of(&text(&after, "root-cert.pem"));
    assert_eq!(roots.certificates(), [renewed, old]);
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn an_order_on_any_replica_is_followed_by_all_and_of_two_at_once_one_wins() {
    let place = Place::new(Cluster::shared().await).await;
    let (a, b) = tokio::join!(place.server(&[]), place.server(&[]));
    let is_prepared = |server: &Server| stage(server) == "prepared";
    rotate(&a, "prepare").unwrap();
    until("stage of the other", &b, is_prepared).await;
    rotate(&b, "activate").unwrap();
    until("stage of the other", &a, |server| {
        stage(server) == "activated"
    })
    .await;
    // The files of both are written a moment after.
    let attempt = async || match a.root_pem() == b.root_pem() {
        true => Ok(()),
        false => Err(format!("{}\n{}", a.root_pem(), b.root_pem())),
    };
    eventually("same roots", attempt).await;
    rotate(&a, "retire").unwrap();
    until("stage of the other", &b, |server| stage(server) == "steady").await;

    let (first, second) = (&a, &b);
    let (first, second) = std::thread::scope(|scope| {
        let at_once = [first, second].map(|server| scope.spawn(|| rotate(server, "prepare")));
        let [first, second] = at_once.map(|order| order.join().unwrap());
        (first, second)
    });
    // The other one was told to prepare what is prepared, or that somebody was quicker.
    assert_eq!(
        [&first, &second]
            .iter()
            .filter(|order| order.is_ok())
            .count(),
        1,
        "{first:?} {second:?}"
    );
    until("stage", &a, is_prepared).await;
    until("stage", &b, is_prepared).await;
    let secret = place.secret("istio-ca-secret").await;
    let roots = roots_of(&text(&secret, "root-cert.pem"));
    assert_eq!(roots.certificates().len(), 2);
    for server in [&a, &b] {
        let attempt = async || match roots_of(&server.root_pem()) == roots {
            true => Ok(()),
            false => Err(server.root_pem()),
        };
        eventually("roots", attempt).await;
    }
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn who_leaves_in_order_leaves_the_lease_behind() {
    let place = Place::new(Cluster::shared().await).await;
    let first = place.server(&[]).await;
    until("leader", &first, leads).await;
    let second = place.server(&[]).await;
    second.until_ready().await;
    assert!(!leads(&second));
    let asked = Instant::now();
    first.signal("TERM");
    until("next leader", &second, leads).await;
    // Else it would have had to see the lease unchanged for as long as it is good.
    assert!(asked.elapsed().as_secs() < 12, "{:?}", asked.elapsed());
    until("holder", &second, |server| {
        let report = report(server);
        let holder = &report["cluster"]["lease"]["holder"];
        holder
            .as_str()
            .is_some_and(|holder| holder.starts_with("ca-server_"))
    })
    .await;
    assert_eq!(second.metric("mesh_ca_leader"), 1.0);
}

/// Asks one server for certificates all the time.
async fn ask_on(server: &Server, token: &str, end: &AtomicBool, answered: &AtomicU64) {
    while !end.load(Ordering::Relaxed) {
        let chain = server.sign(Ask::new(token)).await.unwrap();
        assert!(chain.len() >= 2);
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_leader_that_is_killed_in_any_stage_leaves_nothing_behind_that_the_next_one_does_not_finish()
 {
    let place = Place::new(Cluster::shared().await).await;
    let token = place.token().await;
    // A root is always near its end: the three steps follow each other for as long as somebody leads.
    let flags = [
        "--root-rotation=replace",
        "--root-overlap=3s",
        "--root-check-interval=1s",
        "--root-check-jitter=false",
        "--root-grace-percent=100",
        "--max-workload-cert-ttl=1h",
        "--default-workload-cert-ttl=1h",
    ];
    let mut leader = place.server(&flags).await;
    until("leader", &leader, leads).await;
    for wanted in ["prepared", "activated", "steady"] {
        let next = place.server(&flags).await;
        next.until_ready().await;
        let (end, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        let course = async {
            let attempt = async || match stage(&leader) == wanted {
                true => Ok(()),
                false => Err(stage(&leader)),
            };
            eventually(wanted, attempt).await;
            leader.signal("KILL");
            let left = place.secret("istio-ca-secret").await;
            let so_far = answered.load(Ordering::Relaxed);
            until("next leader", &next, leads).await;
            // Nobody has lost a root on the way.
            let found = roots_of(&text(&left, "root-cert.pem"));
            found.check_successor(&roots_of(&next.root_pem())).unwrap();
            // It goes on from there, all the way round.
            let is_changed = |server: &Server| server.metric("mesh_ca_rotation_steps") >= 3.0;
            until("next steps", &next, is_changed).await;
            assert!(answered.load(Ordering::Relaxed) > so_far + 20);
            end.store(true, Ordering::Relaxed);
        };
        tokio::join!(course, ask_on(&next, &token, &end, &answered));
        assert_eq!(next.metric("mesh_ca_file_refusals"), 0.0);
        leader = next;
    }
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn junk_in_the_secret_is_told_and_changes_nothing_and_a_secret_that_is_gone_is_put_back() {
    let place = Place::new(Cluster::shared().await).await;
    let server = place.server(&[]).await;
    until("leader", &server, leads).await;
    let token = place.token().await;
    let root = server.root_pem();
    let junk = [("ca-cert.pem", "junk")];
    place.put("istio-ca-secret", &junk).await;
    until("refusal", &server, |server| {
        report(server)["ca"]["files"]["is_refused"] == true
    })
    .await;
    let (code, page) = server.get("/readyz");
    let note = format!(
        "secret/{}/istio-ca-secret as it is now is not taken: secret/{0}/istio-ca-secret/ca-cert.pem: ",
        place.namespace
    );
    assert!(code == 200 && page.contains(&note), "{code} {page}");
    assert!(server.metric("mesh_ca_file_refusals") >= 1.0);
    let refused = rotate(&server, "renew").unwrap_err();
    assert!(refused.contains("ca-cert.pem"), "{refused}");
    let chain = server.sign(Ask::new(&token)).await.unwrap();
    assert_eq!(*chain.last().unwrap(), root);
    let kept = place.secret("istio-ca-secret").await;
    assert_eq!(text(&kept, "ca-cert.pem"), "junk");

    place
        .put("istio-ca-secret", &[("ca-cert.pem", &root)])
        .await;
    until("good again", &server, |server| {
        report(server)["ca"]["files"]["is_refused"] == false
    })
    .await;
    let before = place.secret("istio-ca-secret").await;
    let (secrets, params) = (place.secrets(), DeleteParams::default());
    let deleted = secrets.delete("istio-ca-secret", &params);
    within("deletion", deleted).await.unwrap();
    let attempt = async || {
        let found = place.secrets().get_opt("istio-ca-secret").await.unwrap();
        found.ok_or_else(|| server.log())
    };
    let back = eventually("Secret", attempt).await;
    assert_eq!(back.data, before.data);
    assert_eq!(back.type_, before.type_);
    rotate(&server, "renew").unwrap();
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_secret_that_is_plugged_in_is_followed() {
    let place = Place::new(Cluster::shared().await).await;
    let (old, new) = (TestCa::new("cluster.local"), TestCa::new("cluster.local"));
    let files = |ca: &TestCa, roots: &str| -> Vec<(String, String)> {
        let files = ca.state().to_files().into_iter();
        let mut files: BTreeMap<String, String> = files
            .map(|(name, text)| (name.to_owned(), text.to_string()))
            .collect();
        files.insert("root-cert.pem".into(), roots.to_owned());
        files.into_iter().collect()
    };
    let put = async |ca: &TestCa, roots: &str| {
        let files = files(ca, roots);
        let files: Vec<_> = files
            .iter()
            .map(|(name, text)| (&**name, &**text))
            .collect();
        place.put("cacerts", &files).await;
    };
    let first = files(&old, &old.root_pem());
    let first: Vec<_> = first
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    place.create("cacerts", "Opaque", &first).await;
    let (a, b) = tokio::join!(place.server(&[]), place.server(&[]));
    let token = place.token().await;
    for server in [&a, &b] {
        assert_eq!(report(server)["ca"]["kind"], "plugged-in");
        assert_eq!(server.root_pem(), old.root_pem());
    }
    assert!(place.has_none("istio-ca-secret").await);

    // One root for another in one step would cut everybody off.
    put(&new, &new.root_pem()).await;
    for server in [&a, &b] {
        until("refusal", server, |server| {
            report(server)["ca"]["files"]["is_refused"] == true
        })
        .await;
        assert_eq!(server.root_pem(), old.root_pem());
    }
    let both = format!("{}{}", old.root_pem(), new.root_pem());
    let other_way = format!("{}{}", new.root_pem(), old.root_pem());
    for (ca, roots) in [(&old, &both), (&new, &other_way), (&new, &new.root_pem())] {
        put(ca, roots).await;
        for server in [&a, &b] {
            let signs = ca.state().signing_certificate().fingerprint();
            until("successor", server, |server| {
                let report = report(server);
                report["ca"]["signing_certificate"]["fingerprint_sha256"] == *signs
                    && server.root_pem() == *roots
                    && report["ca"]["files"]["is_refused"] == false
            })
            .await;
            let chain = server.sign(Ask::new(&token)).await.unwrap();
            assert_eq!(chain.last().unwrap(), roots);
        }
    }
    let refused = rotate(&a, "renew").unwrap_err();
    assert!(refused.contains("plugged in"), "{refused}");
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_root_of_our_own_can_be_in_cacerts_unless_there_is_one_of_istios() {
    let place = Place::new(Cluster::shared().await).await;
    let flag = ["--cacerts-for-self-signed-ca=true"];
    let first = place.server(&flag).await;
    assert_eq!(report(&first)["ca"]["kind"], "self-signed");
    let secret = place.secret("cacerts").await;
    assert_eq!(text(&secret, "istio-generated"), "");
    assert_eq!(text(&secret, "ca-cert.pem"), first.root_pem());
    assert!(place.has_none("istio-ca-secret").await);
    drop(first);
    let data = [("ca-cert.pem", ISTIOS_ROOT), ("ca-key.pem", ISTIOS_KEY)];
    place
        .create("istio-ca-secret", "istio.io/ca-root", &data)
        .await;
    let second = place.server(&flag).await;
    assert_eq!(second.root_pem(), ISTIOS_ROOT);
    drop(second);
    // Without the flag it is what it looks like: a CA that is plugged in.
    let third = place.server(&[]).await;
    assert_eq!(third.root_pem(), text(&secret, "ca-cert.pem"));
    assert_eq!(report(&third)["ca"]["kind"], "plugged-in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn an_api_server_that_was_away_is_no_reason_to_restart_or_to_stop_signing() {
    let mut cluster = Cluster::start().await;
    let namespace = cluster.namespace("mesh").await;
    let kubeconfig = cluster.install(&namespace).await;
    let workload = cluster.workload(&namespace, "cart", "node-1").await;
    let token = cluster.token(&workload, &["istio-ca"]).await;
    let flags = ["--publish-roots", "false"];
    let (a, b) = tokio::join!(
        Server::start(&kubeconfig, &namespace, &flags),
        Server::start(&kubeconfig, &namespace, &flags)
    );
    for server in [&a, &b] {
        let attempt = async || {
            let signed = server.sign(Ask::new(&token)).await;
            signed.map_err(|status| format!("{status:?}\n{}", server.log()))
        };
        eventually("certificate", attempt).await;
    }
    let attempt = async || match (leads(&a), leads(&b)) {
        (true, false) => Ok(true),
        (false, true) => Ok(false),
        _ => Err("no leader".to_owned()),
    };
    let (leader, other) = match eventually("leader", attempt).await {
        true => (&a, &b),
        false => (&b, &a),
    };
    let root = leader.root_pem();

    cluster.stop_api();
    until("end of leadership", leader, |server| !leads(server)).await;
    for server in [leader, other] {
        assert!(!leads(server));
        let chain = server.sign(Ask::new(&token)).await.unwrap();
        assert_eq!(*chain.last().unwrap(), root);
        let (code, page) = server.get("/readyz");
        assert!(
            code == 200 && page.contains("note: lease mesh-ca: "),
            "{page}"
        );
    }
    let refused = rotate(leader, "renew").unwrap_err();
    assert!(refused.contains("API server"), "{refused}");
    assert_eq!(leader.root_pem(), root);

    cluster.start_api().await;
    let attempt = async || match leads(leader) || leads(other) {
        true => Ok(()),
        false => Err(leader.log()),
    };
    eventually("leader", attempt).await;
    rotate(leader, "renew").unwrap();
    until("the other's root", other, |server| {
        roots_of(&server.root_pem()).certificates().len() == 2
    })
    .await;
    let secrets: Api<Secret> = Api::namespaced(cluster.admin(), &namespace);
    let secret = within("Secret", secrets.get("istio-ca-secret"))
        .await
        .unwrap();
    assert_eq!(text(&secret, "root-cert.pem"), other.root_pem());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_start_without_an_api_server_is_waited_for_and_told_and_no_reason_to_be_killed() {
    let mut cluster = Cluster::start().await;
    let namespace = cluster.namespace("mesh").await;
    let kubeconfig = cluster.install(&namespace).await;
    cluster.stop_api();
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = admin.local_addr().unwrap().to_string();
    drop(admin);
    let flags = ["--publish-roots=false", "--admin-listen", &address];
    let starting = Server::start(&kubeconfig, &namespace, &flags);
    let meanwhile = async {
        let answer = async |path: &str| {
            let attempt = async || ask(&address, "GET", path);
            eventually("answer of the admin listener", attempt).await
        };
        let healthy = answer("/healthz").await;
        assert!(healthy.starts_with("HTTP/1.1 200 "), "{healthy}");
        let ready = answer("/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
        let missing = format!("missing: this CA's Secret in the namespace {namespace}\n");
        assert!(ready.contains(&missing), "{ready}");
        assert!(
            ready.contains("note: the API server cannot be asked: "),
            "{ready}"
        );
        assert!(ready.contains("refused"), "{ready}");
        cluster.start_api().await;
    };
    let (server, ()) = tokio::join!(starting, meanwhile);
    server.until_ready().await;
    // What the library says of each attempt names nobody.
    let log = server.log();
    assert!(
        log.contains("no CA yet") && !log.contains("failed with error"),
        "{log}"
    );
}
