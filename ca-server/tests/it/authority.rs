//! The CA itself changes while it serves: by files, and on an operator's word.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ca_core::testing::{TestCa, now};
use ca_core::{
    CaRequest, Certificate, Csr, IssuedChain, KeyKind, PrivateKey, TrustBundle, create_csr_pem,
};

use crate::client::Client;
use crate::running::{self, Running};

/// A CA below `root`, as an operator's tools would make it.
pub(crate) fn intermediate(root: &TestCa, name: &str) -> (PrivateKey, IssuedChain) {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = Csr::from_pem(create_csr_pem(&key, &[]).unwrap().as_bytes()).unwrap();
    let request = CaRequest::new(csr, "cluster.local", name, Duration::from_secs(7200));
    (key, root.authority().issue_ca(&request, now()).unwrap())
}

/// Writes a CA in Istio's layout, the way a mounted volume changes: all at once, by the swap of a link.
pub(crate) fn plug_in(
    folder: &Path,
    generation: &str,
    key: &PrivateKey,
    issued: &IssuedChain,
    roots: &TrustBundle,
) {
    let target = folder.join(generation);
    std::fs::create_dir_all(&target).unwrap();
    let write = |name: &str, text: &str| std::fs::write(target.join(name), text).unwrap();
    write("ca-key.pem", key.to_pkcs8_pem().as_str());
    write("ca-cert.pem", issued.chain().leaf().to_pem());
    write("cert-chain.pem", &issued.chain().to_pem());
    write("root-cert.pem", roots.to_pem());
    let link = folder.join("..new");
    std::os::unix::fs::symlink(generation, &link).unwrap();
    std::fs::rename(&link, folder.join("..data")).unwrap();
    for name in [
        "ca-key.pem",
        "ca-cert.pem",
        "cert-chain.pem",
        "root-cert.pem",
    ] {
        let path = folder.join(name);
        if !path.is_symlink() {
            std::os::unix::fs::symlink(Path::new("..data").join(name), path).unwrap();
        }
    }
}

/// Asks until the answer is as wanted; the files are noticed within a fraction of a second.
async fn until(client: &Client, csr: &str, wanted: impl Fn(&crate::client::Answer) -> bool) {
    let end = Instant::now() + running::DEADLINE;
    loop {
        // No request may fail, whatever changes meanwhile.
        let answer = client.ask(csr, 60).await.unwrap();
        answer.chain.verify(&answer.roots, now()).unwrap();
        if wanted(&answer) {
            return;
        }
        assert!(Instant::now() < end, "the change was not noticed");
    }
}

#[tokio::test]
async fn a_plugged_in_ca_is_replaced_under_use_without_a_failed_request_or_a_new_connection() {
    let root = TestCa::new("cluster.local");
    let folder = tempfile::tempdir().unwrap();
    let (key, first) = intermediate(&root, "first");
    plug_in(folder.path(), "1", &key, &first, &root.roots());
    let ca = Running::start(&["--root-ca-dir", folder.path().to_str().unwrap()]);
    assert_eq!(ca.root_pem(), root.root_pem());
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let (_, csr) = crate::client::key_and_csr(&[]);
    let signed_by = |ca: &Certificate| {
        let ca = ca.clone();
        move |answer: &crate::client::Answer| {
            answer.chain.intermediates() == std::slice::from_ref(&ca)
        }
    };
    until(&client, &csr, signed_by(first.chain().leaf())).await;

    let (key, second) = intermediate(&root, "second");
    plug_in(folder.path(), "2", &key, &second, &root.roots());
    until(&client, &csr, signed_by(second.chain().leaf())).await;

    // Roots in one step: refused, told, and the good CA goes on.
    let other = TestCa::new("cluster.local");
    let (key, foreign) = intermediate(&other, "foreign");
    plug_in(folder.path(), "3", &key, &foreign, &other.roots());
    let end = Instant::now() + running::DEADLINE;
    while !ca
        .get("/readyz")
        .1
        .contains("are not taken: the new roots neither contain the old ones")
    {
        assert!(
            Instant::now() < end,
            "the refusal is not shown: {:?}",
            ca.get("/readyz")
        );
    }
    assert!(
        ca.get("/metrics")
            .1
            .contains("\nmesh_ca_ca_files_refused 1\n")
    );
    until(&client, &csr, signed_by(second.chain().leaf())).await;

    // In three steps it works, and the published roots follow.
    let both = root.roots().merge(&other.roots());
    let (key_2, second_again) = intermediate(&root, "second");
    plug_in(folder.path(), "4", &key_2, &second_again, &both);
    until(&client, &csr, |answer| {
        answer.roots.certificates().len() == 2
    })
    .await;
    plug_in(
        folder.path(),
        "5",
        &key,
        &foreign,
        &other.roots().merge(&root.roots()),
    );
    until(&client, &csr, signed_by(foreign.chain().leaf())).await;
    plug_in(folder.path(), "6", &key, &foreign, &other.roots());
    until(&client, &csr, |answer| answer.roots == other.roots()).await;
    let end = Instant::now() + running::DEADLINE;
    while ca.root_pem() != other.root_pem() {
        assert!(Instant::now() < end, "the roots file does not follow");
    }
    // The listener itself has a certificate of the new CA by then: who trusts only the new root can connect.
    Client::connect(&ca, None, Some(ca.token(&[])))
        .await
        .ask(&csr, 60)
        .await
        .unwrap();
    // A question has an answer; what cannot be done is refused with the same one.
    let answer = rotate(&ca, "status").unwrap();
    let said = "this CA is plugged in: its root is rotated by replacing the files in ";
    assert!(answer.starts_with(said), "{answer}");
    let refused = rotate(&ca, "prepare");
    assert_eq!(refused, Err(format!("ca-server: {answer}")));
}

#[test]
fn half_a_plugged_in_ca_keeps_the_server_from_starting_and_says_what_is_missing() {
    let root = TestCa::new("cluster.local");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("root-cert.pem"), root.root_pem()).unwrap();
    std::fs::write(folder.path().join("ca-cert.pem"), root.root_pem()).unwrap();
    let data = tempfile::tempdir().unwrap();
    let child = running::spawn(
        &data.path().join("data"),
        &["--root-ca-dir", folder.path().to_str().unwrap()],
    );
    let (status, text) = running::wait_for_failure(child);
    assert!(!status.success());
    assert!(
        text.contains("incomplete signing CA bundle detected: missing ca-key.pem, cert-chain.pem"),
        "{text}"
    );
    assert!(
        !data.path().join("data/authority/0000000001").exists(),
        "no root of our own was made"
    );
}

/// What `ca-server rotate` prints, or why not.
fn rotate(ca: &Running, step: &str) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_ca-server"))
        .args(["rotate", step, "--data-dir"])
        .arg(ca.data_dir())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

#[tokio::test]
async fn the_root_is_replaced_on_an_operators_word_while_requests_go_on() {
    let ca = Running::start(&[]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let (_, csr) = crate::client::key_and_csr(&[]);
    let old = client.ask(&csr, 60).await.unwrap();
    assert!(
        rotate(&ca, "status")
            .unwrap()
            .starts_with("rotation  steady\n")
    );
    assert_eq!(
        rotate(&ca, "retire"),
        Err("ca-server: the rotation is steady: what can be done now is prepare or renew\n".into())
    );

    let prepared = rotate(&ca, "prepare").unwrap();
    assert!(
        prepared.starts_with("rotation  prepared since 20"),
        "{prepared}"
    );
    assert!(!prepared.contains('.'), "to the second: {prepared}");
    assert_eq!(
        rotate(&ca, "renew"),
        Err(
            "ca-server: the rotation is prepared: what can be done now is activate or abandon\n"
                .into()
        )
    );
    let prepared = client.ask(&csr, 60).await.unwrap();
    assert_eq!(prepared.roots.certificates().len(), 2);
    prepared.chain.verify(&old.roots, now()).unwrap();

    rotate(&ca, "activate").unwrap();
    let activated = client.ask(&csr, 60).await.unwrap();
    activated.chain.verify(&prepared.roots, now()).unwrap();
    assert!(
        activated.chain.verify(&old.roots, now()).is_err(),
        "the new root signs"
    );
    old.chain.verify(&activated.roots, now()).unwrap();

    rotate(&ca, "retire").unwrap();
    let retired = client.ask(&csr, 60).await.unwrap();
    assert_eq!(retired.roots.certificates().len(), 1);
    activated.chain.verify(&retired.roots, now()).unwrap();

    // All of it is on the disk, and a restart goes on from there.
    let (status, folder) = ca.signal("TERM");
    assert!(status.success());
    let ca = Running::start_in(folder, &[]);
    assert_eq!(ca.root_pem(), retired.roots.to_pem());
    let status = rotate(&ca, "status").unwrap();
    assert!(
        status.contains("signs") && status.lines().count() == 2,
        "{status}"
    );
}

#[test]
fn a_root_that_is_due_is_renewed_by_itself() {
    // Every root is due at 100 percent, and looked at every second.
    let ca = Running::start(&[
        "--root-grace-percent",
        "100",
        "--root-check-interval",
        "1s",
        "--root-check-jitter",
        "false",
    ]);
    let first = TrustBundle::from_pem(ca.root_pem().as_bytes()).unwrap();
    let end = Instant::now() + running::DEADLINE;
    let renewed = loop {
        let roots = TrustBundle::from_pem(ca.root_pem().as_bytes()).unwrap();
        if roots != first {
            break roots;
        }
        assert!(Instant::now() < end, "the root is not renewed");
    };
    assert!(renewed.contains_all(&first));
    assert_eq!(
        renewed.certificates()[0].public_key(),
        first.certificates()[0].public_key()
    );
}

#[test]
fn an_order_to_nobody_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ca-server"))
        .args(["rotate", "status", "--data-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("no ca-server runs on it")
    );
}
