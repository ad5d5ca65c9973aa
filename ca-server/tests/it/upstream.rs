//! A CA below another: two real servers, and a folder with a real `openssl` as the CA above.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use ca_core::testing::{TestCa, now};
use ca_core::{
    CaRequest, Certificate, CertificateAuthority as _, Csr, PublicKeyKind, SignError,
    SigningRequest, TrustBundle,
};
use ca_proto::istio::v1::auth::IstioCertificateRequest;
use ca_ra::{IstioUpstream, UpstreamConfig, UpstreamCredential, UpstreamError};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::Code;
use tonic::transport::{Certificate as PemCertificate, ClientTlsConfig, Endpoint};

use crate::client::{self, Client};
use crate::running::{self, DEADLINE};

/// A server that may have to wait before it serves; killed when the test ends.
struct Server {
    child: Child,
    announced: Receiver<String>,
    logged: Receiver<String>,
    /// What was announced so far: a word may be asked for after one that stands behind it.
    heard: RefCell<Vec<String>>,
    data_dir: PathBuf,
    admin: String,
}

impl Server {
    /// Starts, and comes back when the admin listener answers.
    fn start(data_dir: &Path, listen: &str, flags: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["--admin-listen", "127.0.0.1:0", "--listen", listen])
            .arg("--data-dir")
            .arg(data_dir)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut server = Self {
            announced: lines(child.stdout.take().unwrap()),
            logged: lines(child.stderr.take().unwrap()),
            heard: RefCell::default(),
            child,
            data_dir: data_dir.into(),
            admin: String::new(),
        };
        server.admin = server.announced("admin");
        server
    }

    /// The value behind a word, once it is printed.
    fn announced(&self, word: &str) -> String {
        let mut heard = self.heard.borrow_mut();
        let known = heard.iter().find(|line| line.starts_with(word)).cloned();
        let line = known.or_else(|| {
            let is_it = |line: &str| {
                heard.push(line.into());
                line.starts_with(word)
            };
            next(&self.announced, is_it).ok()
        });
        assert!(line.is_some(), "no {word} in {heard:?}, {:#?}", self.log());
        let line = line.unwrap();
        line[word.len()..].trim().to_owned()
    }

    /// Waits for a line in the log.
    fn logs(&self, text: &str) -> String {
        let found = next(&self.logged, |line| line.contains(text));
        assert!(found.is_ok(), "no {text:?} in {found:#?}");
        found.unwrap()
    }

    fn log(&self) -> Vec<String> {
        self.logged.try_iter().collect()
    }

    fn get(&self, path: &str) -> (String, String) {
        let mut stream = std::net::TcpStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    fn roots(&self) -> TrustBundle {
        let pem = std::fs::read(self.root_file()).unwrap();
        TrustBundle::from_pem(&pem).unwrap()
    }

    fn root_file(&self) -> PathBuf {
        self.data_dir.join("root-cert.pem")
    }

    fn token(&self, namespace: &str, account: &str) -> String {
        let names = ["--namespace", namespace, "--service-account", account];
        run(PROGRAM, |c| {
            c.arg("token")
                .args(names)
                .arg("--data-dir")
                .arg(&self.data_dir)
        })
    }

    /// What `ca-server status` prints, and whether it says that the server is ready.
    fn status(&self, flags: &[&str]) -> (String, bool) {
        let mut command = Command::new(PROGRAM);
        command.arg("status").args(flags);
        let output = command.output().unwrap();
        (
            String::from_utf8(output.stdout).unwrap(),
            output.status.success(),
        )
    }

    fn rotate(&self, step: &str) -> String {
        run(PROGRAM, |c| {
            c.args(["rotate", step, "--data-dir"]).arg(&self.data_dir)
        })
    }

    async fn client(&self, serving: &str, token: String) -> Client {
        let tls = ClientTlsConfig::new()
            .ca_certificate(PemCertificate::from_pem(self.roots().to_pem()))
            .domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{serving}")).unwrap();
        let endpoint = endpoint.tls_config(tls).unwrap().timeout(DEADLINE);
        Client {
            channel: endpoint.connect().await.unwrap(),
            token: Some(token),
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the end, whether or not anybody wants it: a program whose log nobody reads comes to a halt.
fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

fn next(
    lines: &Receiver<String>,
    mut is_it: impl FnMut(&str) -> bool,
) -> Result<String, Vec<String>> {
    let (end, mut seen) = (Instant::now() + DEADLINE, Vec::new());
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if is_it(&line) => return Ok(line),
            Ok(line) => seen.push(line),
            Err(_) => return Err(seen),
        }
    }
}

fn run(program: &str, arguments: impl FnOnce(&mut Command) -> &mut Command) -> String {
    let output = arguments(&mut Command::new(program)).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {text}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether there is an openssl to be a CA or a second opinion; said where the test is read.
fn has_openssl(for_what: &str) -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok();
    if !there {
        eprintln!("skipped: no openssl for {for_what}");
    }
    there
}

/// A root server whose policy lets the edge be a CA, and what the edge needs to ask it.
struct Above {
    folder: tempfile::TempDir,
    server: Server,
    serving: String,
}

impl Above {
    fn start(policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("policy.toml"), policy).unwrap();
        let server = Self::serve(&folder, "127.0.0.1:0");
        let serving = server.announced("serving");
        let token = server.token("mesh", "edge-ca");
        std::fs::write(folder.path().join("token"), token).unwrap();
        std::fs::copy(server.root_file(), folder.path().join("upstream-root.pem")).unwrap();
        Self {
            folder,
            server,
            serving,
        }
    }

    fn serve(folder: &tempfile::TempDir, listen: &str) -> Server {
        let policy = folder.path().join("policy.toml");
        let flags = ["--policy", policy.to_str().unwrap()];
        Server::start(&folder.path().join("above"), listen, &flags)
    }

    fn below(&self, more: &[&str]) -> Server {
        let file = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let (root, token) = (file("upstream-root.pem"), file("token"));
        let mut flags = vec![
            "--upstream-ca-addr",
            &self.serving,
            "--upstream-ca-root",
            &root,
        ];
        flags.extend(["--upstream-ca-token-file", &token]);
        flags.extend(more);
        Server::start(&self.folder.path().join("below"), "127.0.0.1:0", &flags)
    }
}

async fn certificate(ca: &Server, serving: &str) -> client::Answer {
    let client = ca.client(serving, ca.token("shop", "cart")).await;
    client.ask(&client::key_and_csr(&[]).1, 60).await.unwrap()
}

/// The wish of a client for the certificate of a CA.
async fn wish_to_be_a_ca(client: &Client) -> Result<client::Answer, tonic::Status> {
    let kind = Some(Kind::BoolValue(true));
    let fields = [("CertificateAuthority".to_owned(), Value { kind })].into();
    let request = IstioCertificateRequest {
        csr: client::key_and_csr(&[]).1,
        validity_duration: 60,
        metadata: Some(Struct { fields }),
    };
    client.send(request).await
}

#[tokio::test]
async fn a_workload_of_the_ca_below_is_trusted_by_whoever_trusts_the_root_above() {
    let above = Above::start(POLICY);
    let below = above.below(&[]);
    let serving = below.announced("serving");
    assert_eq!(below.roots(), above.server.roots());
    let answer = certificate(&below, &serving).await;
    assert_eq!(answer.chain.intermediates().len(), 1);
    answer.chain.verify(&above.server.roots(), now()).unwrap();
    if has_openssl("a second opinion") {
        let file = |name: &str, pem: &str| {
            let path = above.folder.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        let leaf = file("leaf.pem", answer.chain.leaf().to_pem());
        let between = file("between.pem", answer.chain.intermediates()[0].to_pem());
        run("openssl", |c| {
            let root = above.server.root_file();
            c.args(["verify", "-x509_strict", "-CAfile"]).arg(root);
            c.arg("-untrusted").arg(between).arg(leaf)
        });
    }
    let status = below.rotate("status");
    assert!(status.contains("intermediate below 127.0.0.1"), "{status}");
    assert!(status.contains("\nrenewal      20"), "{status}");
    let before = answer.chain.intermediates()[0].clone();

    // An order, and the next certificate comes from the next key; who has the old one is trusted as before.
    below.rotate("renew");
    let renewed = certificate(&below, &serving).await;
    let after = &renewed.chain.intermediates()[0];
    assert_ne!(after.public_key(), before.public_key());
    assert_ne!(after.subject_der(), before.subject_der());
    answer.chain.verify(&renewed.roots, now()).unwrap();

    // Nobody else is a CA, and what is below the edge is none either.
    let cart = above
        .server
        .client(&above.serving, above.server.token("shop", "cart"))
        .await;
    let refused = wish_to_be_a_ca(&cart).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let cart = below.client(&serving, below.token("shop", "cart")).await;
    assert_eq!(
        wish_to_be_a_ca(&cart).await.err().unwrap().code(),
        Code::PermissionDenied
    );

    // It starts again from what it has, also when nobody is above; and never as a CA with a root of its own.
    let data_dir = below.data_dir.clone();
    below.kill();
    let (status, text) = running::wait_for_failure(running::spawn(&data_dir, &[]));
    assert!(
        !status.success() && text.contains("another one has certified"),
        "{text}"
    );
    above.server.kill();
    let folder = above.folder.path();
    let root = folder.join("upstream-root.pem");
    let token = folder.join("token");
    let flags = [
        "--upstream-ca-addr",
        &above.serving,
        "--upstream-ca-root",
        root.to_str().unwrap(),
        "--upstream-ca-token-file",
        token.to_str().unwrap(),
    ];
    let again = Server::start(&data_dir, "127.0.0.1:0", &flags);
    let serving = again.announced("serving");
    let answer = certificate(&again, &serving).await;
    assert_eq!(answer.chain.intermediates()[0], *after);
}

#[tokio::test]
async fn without_permission_it_waits_says_why_and_goes_on_when_the_policy_grants_it() {
    let above = Above::start(OWN_NAMES);
    let below = above.below(&[]);
    below.logs("PermissionDenied");
    let (head, body) = below.get("/readyz");
    assert_eq!(head, "HTTP/1.1 503 Service Unavailable");
    assert!(
        body.contains("not permitted") && body.contains(&above.serving),
        "{body}"
    );
    assert_eq!(below.get("/healthz").0, "HTTP/1.1 200 OK");
    let status = below.rotate("status");
    assert!(
        status.contains("waiting for  a certificate from"),
        "{status}"
    );
    assert!(status.contains("\nfailed       20"), "{status}");

    std::fs::write(above.folder.path().join("policy.toml"), POLICY).unwrap();
    let serving = below.announced("serving");
    certificate(&below, &serving).await;
    assert_eq!(below.get("/readyz").1, "ready\n");
}

#[tokio::test]
async fn an_upstream_that_is_down_at_the_start_or_at_a_renewal_is_waited_for() {
    let above = Above::start(POLICY);
    let Above {
        folder,
        server,
        serving: address,
    } = above;
    server.kill();
    let above = Above {
        server: Above::serve_nobody(&folder),
        folder,
        serving: address.clone(),
    };
    let below = above.below(&["--upstream-ca-ttl", "40s"]);
    below.logs("is not available");
    assert_eq!(below.get("/readyz").0, "HTTP/1.1 503 Service Unavailable");
    let up = Above::serve(&above.folder, &address);
    let serving = below.announced("serving");
    below.logs("in use from now on");
    let first = certificate(&below, &serving).await.chain.intermediates()[0].clone();

    // Renewal is due after fifteen seconds, and nobody is there: what is in use stays in use, and that is told.
    up.kill();
    below.logs("is not available");
    let still = certificate(&below, &serving).await;
    assert_eq!(still.chain.intermediates(), std::slice::from_ref(&first));
    let (head, body) = below.get("/readyz");
    assert_eq!(head, "HTTP/1.1 200 OK");
    assert!(body.starts_with("ready\nnote: "), "{body}");
    below.log();
    let _up = Above::serve(&above.folder, &address);
    below.logs("in use from now on");
    let renewed = certificate(&below, &serving).await;
    assert_ne!(renewed.chain.intermediates(), [first]);
}

impl Above {
    /// Any server, on another port: there is one to hold, and nobody at the address.
    fn serve_nobody(folder: &tempfile::TempDir) -> Server {
        Server::start(&folder.path().join("nobody"), "127.0.0.1:0", &[])
    }
}

#[tokio::test]
async fn the_root_above_is_replaced_while_the_ca_below_goes_on() {
    let above = Above::start(POLICY);
    let below = above.below(&["--upstream-ca-check-interval", "1s"]);
    let serving = below.announced("serving");
    let token = below.token("shop", "cart");
    let client = below.client(&serving, token).await;
    let csr = client::key_and_csr(&[]).1;
    below.logs("in use from now on");
    let old = above.server.roots();
    for (step, roots) in [("prepare", 2), ("activate", 2), ("retire", 1)] {
        above.server.rotate(step);
        below.logs("in use from now on");
        // The same connection all the time, and no request that fails.
        let answer = client.ask(&csr, 60).await.unwrap();
        assert_eq!(answer.roots.certificates().len(), roots, "{step}");
        answer.chain.verify(&answer.roots, now()).unwrap();
        let under_the_old = answer.chain.verify(&old, now()).is_ok();
        assert_eq!(under_the_old, step == "prepare", "{step}");
    }
    assert_eq!(below.get("/readyz").1, "ready\n");
}

/// A CA that nobody can ask: openssl, and files that a person carries.
struct Carried {
    folder: PathBuf,
}

impl Carried {
    fn new(folder: &Path) -> Self {
        let folder = folder.join("offline");
        std::fs::create_dir(&folder).unwrap();
        let extensions = "basicConstraints=critical,CA:true,pathlen:0\n\
             keyUsage=critical,keyCertSign,cRLSign\n\
             subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
        std::fs::write(folder.join("extensions"), extensions).unwrap();
        run("openssl", |c| {
            c.current_dir(&folder)
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
                .args(["ec_paramgen_curve:P-256", "-nodes", "-keyout", "root.key"])
                .args([
                    "-out",
                    "root.pem",
                    "-subj",
                    "/O=Offline Root",
                    "-days",
                    "30",
                ])
                .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"])
        });
        Self { folder }
    }

    /// Certifies what asks in the folder, and carries the answer there.
    fn answer(&self, drop: &Path) -> Certificate {
        run("openssl", |c| {
            c.current_dir(&self.folder)
                .args(["x509", "-req", "-CA", "root.pem", "-CAkey", "root.key"])
                .args(["-CAcreateserial", "-extfile", "extensions", "-days", "7"])
                .args(["-out", "ca-cert.pem", "-in"])
                .arg(drop.join("ca.csr"))
        });
        let pem = std::fs::read(self.folder.join("ca-cert.pem")).unwrap();
        put(
            drop,
            "root-cert.pem",
            &std::fs::read(self.folder.join("root.pem")).unwrap(),
        );
        put(drop, "ca-cert.pem", &pem);
        Certificate::from_pem(&pem).unwrap()
    }
}

fn put(folder: &Path, name: &str, content: &[u8]) {
    let unfinished = folder.join("unfinished");
    std::fs::write(&unfinished, content).unwrap();
    std::fs::rename(&unfinished, folder.join(name)).unwrap();
}

fn asked(drop: &Path) -> Csr {
    Csr::from_pem(&std::fs::read(drop.join("ca.csr")).unwrap()).unwrap()
}

#[tokio::test]
async fn files_that_somebody_carries_certify_it_and_the_key_outlives_a_crash() {
    if !has_openssl("a CA that is not online") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, drop) = (folder.path().join("data"), folder.path().join("drop"));
    let offline = Carried::new(folder.path());
    let flags = ["--upstream-ca-drop", drop.to_str().unwrap()];
    let start = || Server::start(&data_dir, "127.0.0.1:0", &flags);

    let server = start();
    server.logs("a certificate is wanted for ca.csr");
    let first = asked(&drop);
    assert!(server.get("/readyz").1.contains("drop/ca-cert.pem for "));
    // Killed between the key and its certificate: the request that is out is still the right one, whatever kind the next is of.
    server.kill();
    let flags = [&flags[..], &["--upstream-ca-key-kind", "ecdsa-p384"]].concat();
    let start = || Server::start(&data_dir, "127.0.0.1:0", &flags);
    let server = start();
    server.logs("a certificate is wanted for ca.csr");
    assert_eq!(asked(&drop).public_key(), first.public_key());

    // Somebody else's certificate, and then one that is no certificate.
    let root = std::fs::read(offline.folder.join("root.pem")).unwrap();
    put(&drop, "ca-cert.pem", &root);
    server.logs("ca-cert.pem is there and root-cert.pem is not");
    put(&drop, "root-cert.pem", &root);
    server.logs("another key");
    put(&drop, "ca-cert.pem", b"junk");
    server.logs("drop/ca-cert.pem: not PEM");
    assert!(server.get("/readyz").1.contains("not PEM"));

    let given = offline.answer(&drop);
    let serving = server.announced("serving");
    let answer = certificate(&server, &serving).await;
    assert_eq!(answer.chain.intermediates(), std::slice::from_ref(&given));
    answer
        .chain
        .verify(&TrustBundle::from_pem(&root).unwrap(), now())
        .unwrap();
    assert!(!drop.join("ca.csr").exists(), "it is answered");

    // A renewal asks and waits; meanwhile the old one signs, and a restart changes nothing of that.
    let status = server.rotate("renew");
    assert!(status.contains("\nwaiting for  "), "{status}");
    let second = asked(&drop);
    assert_eq!(first.public_key().kind(), PublicKeyKind::EcdsaP256);
    assert_eq!(second.public_key().kind(), PublicKeyKind::EcdsaP384);
    server.kill();
    let server = start();
    let serving = server.announced("serving");
    assert_eq!(
        certificate(&server, &serving).await.chain.intermediates(),
        [given]
    );
    server.logs("a certificate is wanted for ca.csr");
    assert_eq!(asked(&drop).public_key(), second.public_key());
    let renewed = offline.answer(&drop);
    server.logs("in use from now on");
    let answer = certificate(&server, &serving).await;
    assert_eq!(answer.chain.intermediates(), [renewed]);
    assert_eq!(server.get("/readyz").1, "ready\n");

    // Another root in one step would cut everybody off: refused, told, and what is good goes on.
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let other = Carried::new(&elsewhere);
    server.rotate("renew");
    other.answer(&drop);
    server.logs("the new roots neither contain the old ones");
    let (head, body) = server.get("/readyz");
    assert_eq!(head, "HTTP/1.1 200 OK");
    assert!(
        body.contains("roots of the upstream CA are not taken"),
        "{body}"
    );
    certificate(&server, &serving).await;
}

/// The same client as the signer of a registration authority, with either of its credentials.
#[tokio::test]
async fn a_certificate_that_begins_later_is_taken_when_its_time_has_come() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, drop) = (folder.path().join("data"), folder.path().join("drop"));
    let flags = ["--upstream-ca-drop", drop.to_str().unwrap()];
    let server = Server::start(&data_dir, "127.0.0.1:0", &flags);
    server.logs("a certificate is wanted for ca.csr");

    // Its own CA makes it two minutes old.
    let ahead = Duration::from_secs(2 * 60 + 3);
    let above = TestCa::new("cluster.local");
    let week = Duration::from_secs(7 * 24 * 3600);
    let request = CaRequest::new(asked(&drop), "cluster.local", "early", week);
    let given = above.authority().issue_ca(&request, now() + ahead).unwrap();
    put(&drop, "root-cert.pem", above.root_pem().as_bytes());
    put(
        &drop,
        "ca-cert.pem",
        given.chain().leaf().to_pem().as_bytes(),
    );
    server.logs("which is not now");
    server.logs("in use from now on");
    let serving = server.announced("serving");
    let answer = certificate(&server, &serving).await;
    assert_eq!(
        answer.chain.intermediates(),
        std::slice::from_ref(given.chain().leaf())
    );
}

#[test]
fn while_it_waits_every_page_and_status_say_for_what_and_since_when() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, drop) = (folder.path().join("data"), folder.path().join("drop"));
    let flags = ["--upstream-ca-drop", drop.to_str().unwrap()];
    let server = Server::start(&data_dir, "127.0.0.1:0", &flags);
    server.logs("a certificate is wanted for ca.csr");
    put(&drop, "ca-cert.pem", b"junk");
    server.logs("drop/ca-cert.pem: not PEM");
    let wanted = format!(
        "a certificate for this CA: {0}/ca-cert.pem for {0}/ca.csr",
        drop.display()
    );

    let (head, body) = server.get("/metrics");
    assert_eq!(head, "HTTP/1.1 200 OK");
    assert!(body.lines().any(|line| line == "mesh_ca_ready 0"), "{body}");
    let (head, page) = server.get("/");
    assert_eq!(head, "HTTP/1.1 200 OK");
    assert!(page.contains("waiting.since"), "{page}");
    let (_, ready) = server.get("/readyz");
    assert!(ready.contains(&format!("missing: {wanted}\n")), "{ready}");
    assert_eq!(ready.matches("missing: ").count(), 1, "{ready}");

    let (head, debug) = server.get("/debug");
    assert_eq!(head, "HTTP/1.1 200 OK");
    let report: serde_json::Value = serde_json::from_str(&debug).unwrap();
    let waiting = &report["waiting"];
    assert_eq!(waiting["wanted"], wanted);
    assert_eq!(waiting["since"], report["started"]);
    let failure = waiting["last_failure"]["reason"].as_str().unwrap();
    assert!(failure.contains("not PEM"), "{failure}");
    assert_eq!(report["ca"]["kind"], "intermediate");
    assert_eq!(report["readiness"]["ready"], false);

    let data_dir = data_dir.to_str().unwrap();
    for flags in [["--data-dir", data_dir], ["--admin", &server.admin]] {
        let (text, ready) = server.status(&flags);
        assert!(text.starts_with("ca-server ") && !ready, "{text}");
        for line in [
            format!("  {:20}  {wanted}\n", "waiting for"),
            format!("  {:20}  20", "since"),
            format!("  {:20}  20", "LAST FAILURE"),
        ] {
            assert!(text.contains(&line), "no {line:?} in {text}");
        }
        assert!(!text.contains("requests"), "nobody could ask: {text}");
    }
}

#[tokio::test]
async fn while_it_waits_nobody_can_connect_to_what_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, drop) = (folder.path().join("data"), folder.path().join("drop"));
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let (webhook, dns) = (free(), free());
    let flags = ["--upstream-ca-drop", drop.to_str().unwrap()];
    let listeners = ["--webhook-listen", &webhook, "--dns-listen", &dns];
    let flags = [&flags[..], &listeners, &["--dns-upstream", "127.0.0.1:9"]].concat();
    let server = Server::start(&data_dir, "127.0.0.1:0", &flags);
    server.logs("a certificate is wanted for ca.csr");
    for address in [&webhook, &dns] {
        let refused = std::net::TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[tokio::test]
async fn a_registration_authority_gets_from_a_real_ca_what_was_granted_and_no_more() {
    let above = Above::start(OWN_NAMES);
    let file = |name: &str, text: &str| {
        let path = above.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ask = |credential| {
        let config = UpstreamConfig {
            address: above.serving.parse().unwrap(),
            roots: above.server.root_file(),
            credential,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        IstioUpstream::new(config, provider).unwrap()
    };
    let cart = "spiffe://cluster.local/ns/shop/sa/cart";
    let request = |name: &str| {
        let (key, csr) = client::key_and_csr(&[name]);
        let names = vec![name.parse().unwrap()];
        let csr = Csr::from_pem(csr.as_bytes()).unwrap();
        (
            key,
            SigningRequest::new(csr, names, Duration::from_secs(600)),
        )
    };
    let token = file("cart-token", &above.server.token("shop", "cart"));
    let by_token = ask(UpstreamCredential::Token(token));
    let (key, wanted) = request(cart);
    let issued = by_token.sign(wanted, now()).await.unwrap();
    assert_eq!(issued.chain().leaf().names(), [cart.parse().unwrap()]);
    assert_eq!(issued.roots(), &above.server.roots());

    let by_certificate = ask(UpstreamCredential::Certificate {
        chain: file("cart.pem", &issued.chain().to_pem()),
        key: file("cart-key.pem", &key.to_pkcs8_pem()),
    });
    by_certificate.sign(request(cart).1, now()).await.unwrap();

    // Only for whom the policy of the CA above lets us act.
    let other = request("spiffe://cluster.local/ns/shop/sa/other").1;
    let error = by_token.sign(other, now()).await.unwrap_err();
    assert!(matches!(error, SignError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("impersonation"), "{error}");
    // And it makes nobody a CA whom its policy does not name.
    let csr = Csr::from_pem(client::key_and_csr(&[]).1.as_bytes()).unwrap();
    let refused = by_token
        .certify_authority(&csr, Duration::from_secs(600), now())
        .await;
    let error = refused.unwrap_err();
    assert!(matches!(error, UpstreamError::Denied { .. }), "{error}");
}

#[test]
fn a_folder_with_a_root_of_its_own_is_not_put_below_another_ca() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = Server::start(&data_dir, "127.0.0.1:0", &[]);
    server.announced("serving");
    server.kill();
    let drop = folder.path().join("drop");
    let child = running::spawn(&data_dir, &["--upstream-ca-drop", drop.to_str().unwrap()]);
    let (status, text) = running::wait_for_failure(child);
    assert!(
        !status.success() && text.contains("holds a self-signed CA"),
        "{text}"
    );
}

/// Nobody may be a CA.
const OWN_NAMES: &str = "own-identity = \"allow\"\n";

const POLICY: &str = r#"
[[certificate-authority]]
name = "the CA of the edge"
callers = ["/ns/mesh/sa/edge-ca"]
sources = ["token"]
"#;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ca-server");
