//! Certificates that somebody else keeps in files.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use ca_core::{
    Csr, KeyKind, PrivateKey, SubjectName, TrustBundle, create_csr_pem,
    crypto::AWS_LC_RS,
    testing::{TestCa, now},
};
use ca_proto::envoy::{
    config::core::v3::data_source::Specifier,
    extensions::transport_sockets::tls::v3::{Secret, secret::Type},
    service::discovery::v3::DiscoveryRequest,
};
use tonic::Code;

use crate::{
    agent::{
        Agent, Home, Stream, build, checked_chain, checked_roots, node, pair_in, request, roots_in,
        secrets, soon,
    },
    ca::Ca,
};

/// A folder laid out and replaced as the kubelet does it.
struct Volume {
    path: PathBuf,
    ca: TestCa,
    versions: usize,
}

impl Volume {
    fn new(home: &Home) -> Self {
        let path = home.path("volume");
        fs::create_dir(&path).unwrap();
        let mut volume = Self {
            path,
            ca: TestCa::new("cluster.local"),
            versions: 0,
        };
        volume.renew();
        for name in ["cert-chain.pem", "key.pem", "root-cert.pem"] {
            symlink(Path::new("..data").join(name), volume.path.join(name)).unwrap();
        }
        volume
    }

    fn roots(&self) -> TrustBundle {
        self.ca.roots()
    }

    /// A new pair, and the roots.
    fn renew(&mut self) {
        let (key, chain) = self.ca.workload("shop", "cart");
        self.replace(
            &chain.to_pem(),
            &key.to_pkcs8_pem(),
            self.ca.roots().to_pem(),
        );
    }

    /// All files, by one swap of a link.
    fn replace(&mut self, chain: &str, key: &str, roots: &str) {
        self.versions += 1;
        let version = format!("..version-{}", self.versions);
        let folder = self.path.join(&version);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cert-chain.pem"), chain).unwrap();
        fs::write(folder.join("key.pem"), key).unwrap();
        fs::write(folder.join("root-cert.pem"), roots).unwrap();
        symlink(&version, self.path.join("..new")).unwrap();
        fs::rename(self.path.join("..new"), self.path.join("..data")).unwrap();
    }

    fn file(&self, name: &str) -> String {
        self.path.join(name).to_str().unwrap().to_owned()
    }

    fn pair_name(&self) -> String {
        format!(
            "file-cert:{}~{}",
            self.file("cert-chain.pem"),
            self.file("key.pem")
        )
    }

    fn roots_name(&self) -> String {
        format!("file-root:{}", self.file("root-cert.pem"))
    }
}

const FAILURES: &str = "istio_agent_num_file_secret_failures_total";

#[tokio::test]
async fn files_are_served_by_their_names_and_followed() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let mut volume = Volume::new(&home);
    let agent = Agent::start_in(home, &ca, &[]);
    let mut pair = agent.subscribe(&[&volume.pair_name()]).await;
    let mut roots = agent.subscribe(&[&volume.roots_name()]).await;

    let first = &pair.accept().await[0];
    assert_eq!(first.name, volume.pair_name());
    let chain = pair_in(first, &volume.roots());
    assert_eq!(
        roots_in(&roots.accept().await[0]),
        volume.roots().to_pem().as_bytes()
    );

    volume.renew();
    let pushed = pair.accept().await;
    assert_eq!(pushed.len(), 1);
    assert_ne!(pair_in(&pushed[0], &volume.roots()), chain);
    assert!(
        pair.is_silent().await && roots.is_silent().await,
        "one push for one change"
    );

    volume.ca = TestCa::new("cluster.local");
    volume.renew();
    pair_in(&pair.accept().await[0], &volume.roots());
    assert_eq!(
        roots_in(&roots.accept().await[0]),
        volume.roots().to_pem().as_bytes()
    );
    // These are not the workload's.
    let own = agent.subscribe(&["default"]).await.accept().await;
    checked_chain(&own[0], &ca.roots);
}

#[tokio::test]
async fn broken_files_are_refused_and_the_last_good_ones_served() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let mut volume = Volume::new(&home);
    let agent = Agent::start_in(home, &ca, &[]);
    let names = [volume.pair_name(), volume.roots_name()];
    let mut both = agent.subscribe(&[&names[0], &names[1]]).await;
    let mut held = both.accept().await;
    if held.len() < 2 {
        held.extend(both.accept().await);
    }

    let (key, _) = volume.ca.workload("shop", "cart");
    let (_, chain) = volume.ca.workload("shop", "cart");
    volume.replace(&chain.to_pem(), &key.to_pkcs8_pem(), "no roots");
    agent.counts(FAILURES, "2.0").await;
    assert!(both.is_silent().await);
    let newcomer = agent
        .subscribe(&[&names[0], &names[1]])
        .await
        .accept()
        .await;
    assert_eq!(newcomer.len(), 2);
    assert!(newcomer.iter().all(|secret| held.contains(secret)));

    // Gone is no better than broken, and no reason to take anything away.
    drop(both);
    fs::remove_file(volume.path.join("..data")).unwrap();
    agent.counts(FAILURES, "4.0").await;
    let newcomer = agent
        .subscribe(&[&names[0], &names[1]])
        .await
        .accept()
        .await;
    assert_eq!(newcomer.len(), 2);

    volume.renew();
    let mut pair = agent.subscribe(&[&names[0]]).await;
    let mut latest = pair.accept().await;
    if held.contains(&latest[0]) {
        latest = pair.accept().await;
    }
    pair_in(&latest[0], &volume.roots());
}

#[tokio::test]
async fn files_that_are_not_there_are_answered_when_they_come() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let path = agent.home.path("volume/root-cert.pem");
    let name = format!("file-root:{}", path.display());
    let mut roots = agent.subscribe(&[&name]).await;
    agent.counts(FAILURES, "1.0").await;
    assert!(roots.is_silent().await);
    Volume::new(&agent.home);
    assert_eq!(roots_in(&roots.accept().await[0]), fs::read(path).unwrap());
    let wish = DiscoveryRequest {
        node: Some(node()),
        ..request(&[&name])
    };
    let mut client = agent.client().await;
    let fetched = soon("an answer", client.fetch_secrets(wish)).await.unwrap();
    assert_eq!(secrets(fetched.get_ref())[0].name, name);
}

#[tokio::test]
async fn the_roots_of_the_system_have_a_name() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut system = agent.subscribe(&["file-root:system"]).await;
    // This is what this machine has; a machine without roots waits.
    let file = "/etc/ssl/certs/ca-certificates.crt";
    if !Path::new(file).exists() {
        assert!(system.is_silent().await);
        return;
    }
    let mut named = agent.subscribe(&[&format!("file-root:{file}")]).await;
    let (system, named) = (system.accept().await, named.accept().await);
    assert_eq!(roots_in(&system[0]), roots_in(&named[0]));
}

#[tokio::test]
async fn paths_may_be_relative_to_the_folder_that_the_agent_runs_in() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut volume = Volume::new(&agent.home);
    let here = std::env::current_dir().unwrap();
    let up = "../".repeat(here.components().count() - 1);
    let relative = |name: &str| format!("{up}{}", volume.file(name).trim_start_matches('/'));
    let name = format!(
        "file-cert:{}~{}",
        relative("cert-chain.pem"),
        relative("key.pem")
    );
    let mut stream = agent.subscribe(&[&name]).await;
    let served = stream.accept().await;
    assert_eq!(served[0].name, name);
    let chain = pair_in(&served[0], &volume.roots());
    volume.renew();
    assert_ne!(pair_in(&stream.accept().await[0], &volume.roots()), chain);
}

#[tokio::test]
async fn rsa_keys_in_files_are_served() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut volume = Volume::new(&agent.home);
    let key = PrivateKey::generate_with(KeyKind::Rsa2048, &AWS_LC_RS).unwrap();
    let names = [SubjectName::from(volume.ca.id("shop", "cart"))];
    let csr = create_csr_pem(&key, &names).unwrap();
    let csr = Csr::from_pem(csr.as_bytes()).unwrap();
    let hour = Duration::from_secs(3600);
    let chain = volume.ca.issue(&csr, &names, hour, now()).chain().to_pem();
    let roots = volume.roots();
    volume.replace(&chain, &key.to_pkcs8_pem(), roots.to_pem());
    let served = agent.subscribe(&[&volume.pair_name()]).await.accept().await;
    pair_in(&served[0], &roots);
}

#[tokio::test]
async fn only_so_many_files_are_followed() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let names: Vec<_> = (0..65)
        .map(|number| format!("file-root:missing-{number}"))
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let status = agent.subscribe(&names).await.next().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    // Those that nobody wants make room.
    let volume = Volume::new(&agent.home);
    agent.counts("sds_agent_streams", "0").await;
    agent.subscribe(&[&volume.pair_name()]).await.accept().await;
}

fn mounted(volume: &Volume) -> [String; 2] {
    let folders = format!("/nowhere,{}", volume.path.display());
    ["--mounted-certs".to_owned(), folders]
}

#[tokio::test]
async fn mounted_certificates_are_served_instead_of_those_of_a_ca() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let mut volume = Volume::new(&home);
    home.write_token("bogus-token");
    let [flag, folders] = mounted(&volume);
    let agent = Agent::start_in(home, &ca, &[&flag, &folders]);
    let mut pair = agent.subscribe(&["default"]).await;
    let mut roots = agent.subscribe(&["ROOTCA"]).await;
    let chain = checked_chain(&pair.accept().await[0], &volume.roots());
    assert_eq!(checked_roots(&roots.accept().await[0]), volume.roots());
    agent.becomes("/readyz", |status, _| status == 200).await;

    volume.renew();
    assert_ne!(
        checked_chain(&pair.accept().await[0], &volume.roots()),
        chain
    );
    volume.replace("junk", "junk", volume.ca.roots().clone().to_pem());
    let ready = agent
        .becomes("/readyz", |_, body| body.contains("does not read"))
        .await;
    assert!(ready.starts_with("certificate until"), "{ready}");
    assert!(pair.is_silent().await);
    assert!(ca.seen().is_empty(), "no CA is asked");
    let metrics = agent.get("/metrics").await.1;
    assert!(
        metrics.contains("cert_expiry_seconds{resource_name=\"default\"}"),
        "{metrics}"
    );
}

#[tokio::test]
async fn what_googles_kubernetes_mounts_is_served_and_must_be_there() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let folder = home.path("google");
    fs::create_dir(&folder).unwrap();
    let folders = folder.to_str().unwrap().to_owned();
    let flags = [
        "--ca-provider",
        "GkeWorkloadCertificate",
        "--mounted-certs",
        &folders,
    ];
    let error = build(&home, &ca, &flags).unwrap_err().to_string();
    assert!(error.contains("are not in"), "{error}");

    let (key, chain) = ca.hand().workload("shop", "cart");
    for (name, text) in [
        ("certificates.pem", &*chain.to_pem()),
        ("private_key.pem", &key.to_pkcs8_pem()),
        ("ca_certificates.pem", ca.roots.to_pem()),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    let agent = Agent::start_in(home, &ca, &flags);
    let roots = agent.subscribe(&["ROOTCA"]).await.accept().await;
    assert_eq!(checked_roots(&roots[0]), ca.roots);
    let pair = agent.subscribe(&["default"]).await.accept().await;
    assert_eq!(checked_chain(&pair[0], &ca.roots), chain);
    assert!(ca.seen().is_empty(), "no CA is asked");
}

#[tokio::test]
async fn where_only_the_pair_is_mounted_the_roots_come_from_the_ca() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let mut volume = Volume::new(&home);
    fs::remove_file(volume.path.join("root-cert.pem")).unwrap();
    let [flag, folders] = mounted(&volume);
    let agent = Agent::start_in(home, &ca, &[&flag, &folders]);
    let pair = agent.subscribe(&["default"]).await.accept().await;
    checked_chain(&pair[0], &volume.roots());
    let mut roots = agent.subscribe(&["ROOTCA"]).await;
    assert_eq!(checked_roots(&roots.accept().await[0]), ca.roots);
    volume.renew();
}

#[tokio::test]
async fn the_folder_that_the_agent_writes_is_not_taken_for_a_mounted_one() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let volume = Volume::new(&home);
    let [flag, folders] = mounted(&volume);
    let output = volume.path.to_str().unwrap().to_owned();
    let agent = Agent::start_in(home, &ca, &[&flag, &folders, "--output-dir", &output]);
    let mut pair: Stream = agent.subscribe(&["default"]).await;
    checked_chain(&pair.accept().await[0], &ca.roots);
    agent.renew();
    checked_chain(&pair.accept().await[0], &ca.roots);
}

/// A list by rcgen, an implementation that is not ours, which is over after these days.
fn revocation_list(ca: &TestCa, days: i64) -> String {
    let key = rcgen::KeyPair::from_pem(&ca.key().to_pkcs8_pem()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(ca.roots().to_pem(), key).unwrap();
    let params = rcgen::CertificateRevocationListParams {
        this_update: now() - time::Duration::days(7),
        next_update: now() + time::Duration::days(days),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    params.signed_by(&issuer).unwrap().pem().unwrap()
}

fn list_in(secret: &Secret) -> Option<Vec<u8>> {
    let Some(Type::ValidationContext(context)) = &secret.r#type else {
        panic!("not roots: {}", secret.name);
    };
    match context.crl.as_ref()?.specifier.as_ref()? {
        Specifier::InlineBytes(bytes) => Some(bytes.clone()),
        other => panic!("not inline: {other:?}"),
    }
}

#[tokio::test]
async fn revocation_lists_go_along_with_all_roots_and_are_followed() {
    let ca = Ca::good();
    let home = Home::new(&ca);
    let volume = Volume::new(&home);
    let path = home.path("ca-crl.pem");
    let flags = ["--crl-file", path.to_str().unwrap()];
    let agent = Agent::start_in(home, &ca, &flags);
    let mut roots = agent.subscribe(&["ROOTCA"]).await;
    let mut from_file = agent.subscribe(&[&volume.roots_name()]).await;
    assert_eq!(list_in(&roots.accept().await[0]), None);
    assert_eq!(list_in(&from_file.accept().await[0]), None);

    let list = revocation_list(&volume.ca, 1);
    let written = pem::parse(&list).unwrap();
    fs::write(&path, &list).unwrap();
    for stream in [&mut roots, &mut from_file] {
        let found = list_in(&stream.accept().await[0]).unwrap();
        assert_eq!(pem::parse(found).unwrap().contents(), written.contents());
    }
    // Envoy would fail every connection.
    fs::write(&path, revocation_list(&volume.ca, -1)).unwrap();
    agent.counts(FAILURES, "1.0").await;
    assert!(roots.is_silent().await);

    fs::remove_file(&path).unwrap();
    for stream in [&mut roots, &mut from_file] {
        assert_eq!(list_in(&stream.accept().await[0]), None);
    }
}
