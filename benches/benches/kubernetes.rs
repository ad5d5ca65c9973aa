//! What does it cost to believe the service accounts of a cluster? Needs an API server: `cargo xtask bench kubernetes` brings one.
//!
//! A thousand pods, each with an account and a bound token of its own, ask `ca-server` for certificates: one that knows the cluster,
//! one that is made to ask it about each token, and one that has only the keys of its issuer. All are the programs that `cargo build
//! --release` makes; the cluster is an API server with its etcd and nothing else.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a measurement cannot do ends it"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ca_core::testing::now;
use ca_core::{
    CertificateAuthority as _, Csr, KeyKind, PrivateKey, SigningRequest, SpiffeId, create_csr_pem,
};
use ca_ra::{Afterwards, Approval, CertManagerAuthority, CertManagerConfig, Issuers, SignerRoots};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

#[expect(dead_code, reason = "tests use all of it")]
#[path = "../../ca-server/tests/kubernetes/cluster.rs"]
mod cluster;
#[path = "../../ca-server/tests/kubernetes/control_plane.rs"]
mod control_plane;
#[path = "../../ca-server/tests/kubernetes/deadline.rs"]
mod deadline;
#[path = "kubernetes/istios_client.rs"]
mod istios_client;
#[path = "../../ca-server/tests/kubernetes/manifests.rs"]
mod manifests;
#[expect(dead_code, reason = "tests use all of it")]
#[path = "../../ca-server/tests/kubernetes/stand_in.rs"]
mod stand_in;
#[path = "../../ca-server/tests/kubernetes/watched.rs"]
mod watched;

use cluster::Cluster;
use deadline::{DEADLINE, eventually, within};
use stand_in::StandIn;

fn main() {
    if !is_set("KUBEBUILDER_ASSETS") {
        println!("no API server: `cargo xtask bench kubernetes` brings one");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let findings = runtime.block_on(measure());
    // For whoever writes it down: the only line that is JSON.
    println!("{}", Value::from(findings));
}

#[expect(
    clippy::disallowed_methods,
    reason = "an edge: whoever runs it says where the partners are"
)]
fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some()
}

async fn measure() -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start().await;
    let namespace = cluster.namespace("mesh").await;
    let kubeconfig = cluster.install(&namespace).await;
    let fleet = Fleet::make(&cluster, folder.path().join("tokens")).await;
    let keys = folder.path().join("jwks.json");
    let request = http::Request::get("/openid/v1/jwks").body(Vec::new());
    let asked = cluster.admin().request_text(request.unwrap()).await;
    std::fs::write(&keys, asked.unwrap()).unwrap();

    let in_cluster = ["--kubernetes", "--kubeconfig", kubeconfig.to_str().unwrap()];
    let by_keys = [
        "--token-issuer",
        &cluster.url(),
        "--token-issuer-keys",
        keys.to_str().unwrap(),
    ];
    let limited = istios_client::listen(cluster.client(&kubeconfig).await, folder.path()).await;
    let by_review = ["--kubernetes", "--kubeconfig", limited.to_str().unwrap()];
    let by_review = [&by_review[..], &BY_REVIEW].concat();
    let warm = [
        "--in-flight",
        "32",
        "--per-connection",
        "8",
        "--duration",
        "5s",
    ];

    // Side by side, in rounds: what slows the machine for a while slows both.
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let plain = Server::start(&namespace, &by_keys, Some("0")).await;
        let plain = number(&plain.load(&fleet, &warm, Some("1")), "/issued_per_second");
        let local = Server::start(&namespace, &in_cluster, Some("0")).await;
        let local = number(&local.load(&fleet, &warm, Some("1")), "/issued_per_second");
        rounds.push((local, plain));
    }
    let reviewed = Server::start(&namespace, &by_review, Some("0")).await;
    // The burst is over before it counts.
    let after_burst = [&warm[..4], &["--warm-up", "4s", "--duration", "10s"]].concat();
    let reviewed = reviewed.load(&fleet, &after_burst, Some("1"));
    let reviewed = number(&reviewed, "/issued_per_second");
    let (local, plain) = middle(&rounds);

    let mut storms = Vec::new();
    for _ in 0..ROUNDS {
        let server = Server::start(&namespace, &in_cluster, None).await;
        let once = [
            "--once",
            "--retries",
            "1000",
            "--deadline",
            "60s",
            "--duration",
            "60s",
        ];
        let all = server.load(&fleet, &once, None);
        assert_eq!(number(&all, "/issued"), f64::from(WORKLOADS), "{all}");
        storms.push(number(&all, "/latency/longest") / 1000.0);
    }
    storms.sort_by(f64::total_cmp);
    let storm = storms[storms.len() / 2];
    let added = added_by_registration(&cluster).await;

    let finding = |target: &str, asked: &str, measured: String, met: bool| json!({ "target": target, "asked": asked, "measured": measured, "met": met });
    vec![
        finding(
            "tokens verified here, beside a TokenReview for each request with Istio's limits",
            "≥ 20 ×",
            format!(
                "{:.0} × ({local:.0}/s and {reviewed:.0}/s)",
                local / reviewed
            ),
            local >= 20.0 * reviewed,
        ),
        finding(
            "the same, beside tokens of an issuer that is no cluster",
            "≥ 75 %",
            format!(
                "{:.0} % ({local:.0}/s and {plain:.0}/s)",
                local * 100.0 / plain
            ),
            local >= 0.75 * plain,
        ),
        finding(
            "1,000 workloads that start at once, on a server that has just started, on two cores: until the last has its certificate",
            "< 5 s",
            format!("{storm:.2} s"),
            storm < 5.0,
        ),
        finding(
            "a certificate by cert-manager, beside what the signer itself takes (a stand-in: approval, signature, two writes)",
            "p50 < 50 ms",
            format!(
                "p50 {:.1} ms, p99 {:.1} ms of {}",
                added.at(50),
                added.at(99),
                added.0.len()
            ),
            added.at(50) < 50.0,
        ),
    ]
}

/// Milliseconds, sorted.
struct Added(Vec<f64>);

impl Added {
    fn at(&self, percent: usize) -> f64 {
        self.0[self.0.len() * percent / 100]
    }
}

/// What a request to cert-manager takes besides the time that the signer takes for it, one after the other.
async fn added_by_registration(cluster: &Cluster) -> Added {
    let namespace = cluster.namespace("requests").await;
    let kubeconfig = cluster
        .install_manifest("registration-cert-manager.yaml", &namespace)
        .await;
    let (authority, upkeep) = CertManagerAuthority::new(CertManagerConfig {
        client: cluster.client(&kubeconfig).await,
        namespace: namespace.clone(),
        issuers: Issuers::Fixed("Issuer.cert-manager.io/istio-ca".parse().unwrap()),
        approval: Approval::Others,
        afterwards: Afterwards::Delete,
        annotations: BTreeMap::new(),
        roots: SignerRoots::from_answers(),
        deadline: DEADLINE,
    });
    let upkeep = tokio::spawn(upkeep.run());
    let signer = StandIn::cert_manager(cluster.admin(), &namespace, "istio-ca");
    let mut added = Vec::new();
    for number in 0..REQUESTS {
        let name: SpiffeId = format!("spiffe://signer/ns/fleet/sa/w-{number}")
            .parse()
            .unwrap();
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let pem = create_csr_pem(&key, &[name.clone().into()]).unwrap();
        let csr = Csr::from_pem(pem.as_bytes()).unwrap();
        let request = SigningRequest::new(csr, vec![name.into()], Duration::from_secs(3600));
        let began = Instant::now();
        let signed = within("certificate", authority.sign(request, now())).await;
        let whole = began.elapsed();
        signed.unwrap();
        let own = signer.own_time(number).await;
        added.push(whole.saturating_sub(own).as_secs_f64() * 1000.0);
    }
    upkeep.abort();
    added.sort_by(f64::total_cmp);
    Added(added)
}

/// The rates of the round in the middle, by their ratio.
fn middle(rounds: &[(f64, f64)]) -> (f64, f64) {
    let mut rounds = rounds.to_vec();
    rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    rounds[rounds.len() / 2]
}

/// Pods with a token each, in files that are named as the driver names their accounts.
struct Fleet {
    tokens: PathBuf,
    namespace: String,
}

impl Fleet {
    async fn make(cluster: &Cluster, tokens: PathBuf) -> Self {
        std::fs::create_dir(&tokens).unwrap();
        let namespace = cluster.namespace("fleet").await;
        let (start, namespace_of, folder) = (Instant::now(), &namespace, &tokens);
        stream::iter(0..WORKLOADS)
            .for_each_concurrent(AT_ONCE, async |number| {
                let (account, node) = (format!("w-{number}"), format!("node-{}", number % 20));
                let workload = cluster.workload(namespace_of, &account, &node).await;
                let token = cluster.token(&workload, &["istio-ca"]).await;
                std::fs::write(folder.join(account), token).unwrap();
            })
            .await;
        println!("{WORKLOADS} pods in {:.0} s", start.elapsed().as_secs_f64());
        Self { tokens, namespace }
    }
}

/// Our program, as it is released. Ended when dropped.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
    address: String,
    namespace: String,
}

impl Server {
    async fn start(namespace: &str, flags: &[&str], core: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = on(core, &program("ca-server"));
        let child = command
            .env("POD_NAMESPACE", namespace)
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args(flags)
            .stdout(std::fs::File::create(&said).unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            child,
            folder,
            address: String::new(),
            namespace: namespace.into(),
        };
        server.address = server.announced("serving").await;
        let admin = server.announced("admin").await;
        eventually("readiness", async || ready(&admin)).await;
        server
    }

    async fn announced(&self, key: &str) -> String {
        eventually(key, async || {
            let said = std::fs::read_to_string(self.folder.path().join("said")).unwrap();
            let value = said.lines().find_map(|line| line.strip_prefix(key));
            value.map(|value| value.trim().to_owned()).ok_or_else(|| {
                std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            })
        })
        .await
    }

    /// What the driver has measured.
    fn load(&self, fleet: &Fleet, flags: &[&str], core: Option<&str>) -> Value {
        let summary = self.folder.path().join("summary.json");
        let output = on(core, &program("fleet"))
            .args(["load", "--spread", "--address", &self.address])
            .args(["--server-name", &format!("istiod.{}.svc", self.namespace)])
            .arg("--ca-root")
            .arg(self.folder.path().join("data/root-cert.pem"))
            .args(["--workloads", &WORKLOADS.to_string()])
            .args(["--namespace", &fleet.namespace])
            .arg("--token-folder")
            .arg(&fleet.tokens)
            .args(flags)
            .arg("--json")
            .arg(&summary)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        println!("{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_str(&std::fs::read_to_string(summary).unwrap()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ready(admin: &str) -> Result<(), String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(admin).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut text = String::new();
    let asked = write!(
        stream,
        "GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"
    );
    asked
        .and_then(|()| stream.read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    if text.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(text)
    }
}

/// Of the same build as this one.
fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.parent()
        .and_then(Path::parent)
        .expect("target/release/deps")
        .join(name)
}

fn on(core: Option<&str>, program: &Path) -> Command {
    let Some(core) = core else {
        return Command::new(program);
    };
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

fn number(json: &Value, path: &str) -> f64 {
    json.pointer(path)
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("no {path} in {json}"))
}

/// One TokenReview for each request.
const BY_REVIEW: [&str; 4] = [
    "--kubernetes-tokens",
    "review",
    "--kubernetes-review-cache",
    "0s",
];
const WORKLOADS: u32 = 1000;
const AT_ONCE: usize = 16;
const REQUESTS: usize = 200;
const ROUNDS: usize = 3;
