//! Who is believed, and who may have what, over the wire.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ca_core::testing::now;
use ca_core::{KeyKind, PrivateKey, create_csr_pem};
use ca_proto::istio::v1::auth::IstioCertificateRequest;
use ca_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde_json::json;
use tonic::transport::Identity;
use tonic::{Code, Request, Status};

use crate::client::{Client, key_and_csr};
use crate::issuer::{TokenIssuer, TokenKey};
use crate::running::{self, Running};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const GATE: &str = "spiffe://cluster.local/ns/shop/sa/gate";

/// The names that a token gets from a CA.
async fn names_for(ca: &Running, token: &str) -> Result<Vec<String>, Status> {
    let client = Client::connect(ca, None, Some(token.into())).await;
    names(&client).await
}

async fn names(client: &Client) -> Result<Vec<String>, Status> {
    let answer = client.ask(&key_and_csr(&[]).1, 0).await?;
    let names = answer.chain.leaf().names().iter();
    Ok(names.map(ToString::to_string).collect())
}

fn code<T>(result: &Result<T, Status>) -> Code {
    result.as_ref().map_or_else(Status::code, |_| Code::Ok)
}

/// Asks until the answer is what it should become: files are followed, not polled by us.
async fn until<T, E>(
    mut ask: impl AsyncFnMut() -> Result<T, E>,
    good: impl Fn(&Result<T, E>) -> bool,
) {
    let end = Instant::now() + running::DEADLINE;
    while !good(&ask().await) {
        assert!(Instant::now() < end, "it did not change in time");
    }
}

#[tokio::test]
async fn an_issuer_rotates_its_keys_and_goes_down_without_a_restart_of_the_ca() {
    let issuer = TokenIssuer::start();
    let ca = Running::start(&[
        "--token-issuer",
        &issuer.name,
        "--token-issuer-ca",
        &issuer.ca_file(),
        "--token-keys-cooldown",
        "1ms",
    ]);
    let (old, new) = (TokenKey::new("old"), TokenKey::new("new"));
    let token = |key: &TokenKey| key.token(&issuer.name, &json!({}));

    // The CA starts before its issuer can answer. Agents are told to try again.
    let early = names_for(&ca, &token(&old)).await;
    assert_eq!(code(&early), Code::Unavailable, "{early:?}");
    assert_eq!(early.unwrap_err().message(), "request authenticate failure");

    issuer.publish(&[&old]);
    assert_eq!(names_for(&ca, &token(&old)).await.unwrap(), [CART]);
    assert_eq!(
        code(&names_for(&ca, &token(&new)).await),
        Code::Unauthenticated
    );

    // Rotated: the first token with the new key makes the CA look.
    issuer.publish(&[&old, &new]);
    assert_eq!(names_for(&ca, &token(&new)).await.unwrap(), [CART]);
    issuer.publish(&[&new]);
    let unknown = TokenKey::new("unknown");
    assert_eq!(
        code(&names_for(&ca, &token(&unknown)).await),
        Code::Unauthenticated
    );
    assert_eq!(
        code(&names_for(&ca, &token(&old)).await),
        Code::Unauthenticated
    );

    // Down: known keys are good, and whether there are others cannot be told.
    issuer.go_down();
    assert_eq!(names_for(&ca, &token(&new)).await.unwrap(), [CART]);
    assert_eq!(code(&names_for(&ca, &token(&old)).await), Code::Unavailable);

    // What another issuer says is not asked about here at all.
    let other = old.token("https://other.example", &json!({}));
    assert_eq!(code(&names_for(&ca, &other).await), Code::Unauthenticated);
    for bad in [
        json!({ "aud": ["other"] }),
        json!({ "exp": now().unix_timestamp() - 1 }),
        json!({ "sub": "system:serviceaccount" }),
        json!({ "sub": "" }),
    ] {
        let verdict = names_for(&ca, &new.token(&issuer.name, &bad)).await;
        assert_eq!(code(&verdict), Code::Unauthenticated, "{bad}");
    }
}

#[tokio::test]
async fn keys_that_are_too_old_verify_nothing_while_the_issuer_is_down() {
    let issuer = TokenIssuer::start();
    let key = TokenKey::new("one");
    issuer.publish(&[&key]);
    let ca = Running::start(&[
        "--token-issuer",
        &issuer.name,
        "--token-issuer-keys",
        &format!("{}/keys", issuer.name),
        "--token-issuer-ca",
        &issuer.ca_file(),
        "--token-keys-cooldown",
        "0s",
        "--token-keys-max-age",
        "100ms",
    ]);
    let token = key.token(&issuer.name, &json!({}));
    assert_eq!(names_for(&ca, &token).await.unwrap(), [CART]);
    issuer.go_down();
    until(
        || names_for(&ca, &token),
        |verdict| code(verdict) == Code::Unavailable,
    )
    .await;
    issuer.publish(&[&key]);
    assert_eq!(names_for(&ca, &token).await.unwrap(), [CART]);
}

#[tokio::test]
async fn the_roots_of_an_issuers_server_may_change_too() {
    let issuer = TokenIssuer::start();
    let key = TokenKey::new("one");
    issuer.publish(&[&key]);
    let roots = issuer.path("roots.pem");
    let other = ca_core::testing::TestCa::new("other").root_pem();
    std::fs::write(&roots, other).unwrap();
    let ca = Running::start(&[
        "--token-issuer",
        &issuer.name,
        "--token-issuer-ca",
        roots.to_str().unwrap(),
        "--token-keys-cooldown",
        "0s",
    ]);
    let token = key.token(&issuer.name, &json!({}));
    assert_eq!(code(&names_for(&ca, &token).await), Code::Unavailable);
    std::fs::copy(issuer.ca_file(), &roots).unwrap();
    until(|| names_for(&ca, &token), Result::is_ok).await;
}

#[tokio::test]
async fn several_issuers_are_believed_each_about_its_own() {
    let (kubernetes, ci) = (TokenIssuer::start(), TokenIssuer::start());
    let (kubernetes_key, ci_key, file_key) = (
        TokenKey::new("k"),
        TokenKey::new("ci"),
        TokenKey::new("file"),
    );
    kubernetes.publish(&[&kubernetes_key]);
    ci.publish(&[&ci_key]);
    let keys = kubernetes.path("keys.json");
    std::fs::write(&keys, json!({ "keys": [file_key.jwk()] }).to_string()).unwrap();
    let issuers = kubernetes.path("issuers.toml");
    let text = format!(
        r#"
        [[issuer]]
        name = "{}"
        ca-file = "{}"
        audiences = ["mesh"]
        identity = "spiffe://{{trust_domain}}/ns/ci/sa/{{claim:project}}"
        require = {{ owner = "example" }}
        [[issuer]]
        name = "file"
        keys = "{}"
        "#,
        ci.name,
        ci.ca_file(),
        keys.display()
    );
    std::fs::write(&issuers, text).unwrap();
    let rule = json!({ "issuer": kubernetes.name, "jwksUri": format!("{}/keys", kubernetes.name) });
    let ca = Running::start(&[
        "--jwt-rule",
        &rule.to_string(),
        "--token-issuer-ca",
        &kubernetes.ca_file(),
        "--token-issuers",
        issuers.to_str().unwrap(),
    ]);
    let ci_claims = |changes: serde_json::Value| {
        let mut claims =
            json!({ "sub": "1", "aud": "mesh", "owner": "example", "project": "site" });
        let more = changes.as_object().unwrap().clone();
        claims.as_object_mut().unwrap().extend(more);
        ci_key.token(&ci.name, &claims)
    };
    for (token, expected) in [
        (
            kubernetes_key.token(&kubernetes.name, &json!({})),
            Some(CART),
        ),
        (file_key.token("file", &json!({})), Some(CART)),
        (
            ci_claims(json!({})),
            Some("spiffe://cluster.local/ns/ci/sa/site"),
        ),
        (ci_claims(json!({ "owner": "stranger" })), None),
        (
            ci_claims(json!({ "project": "../../kube-system/sa/admin" })),
            None,
        ),
        (ci_claims(json!({ "aud": "istio-ca" })), None),
        // Each speaks for itself alone.
        (ci_key.token(&kubernetes.name, &json!({})), None),
        (kubernetes_key.token("file", &json!({})), None),
    ] {
        let verdict = names_for(&ca, &token).await;
        match expected {
            Some(name) => assert_eq!(verdict.unwrap(), [name]),
            None => assert_eq!(code(&verdict), Code::Unauthenticated, "{verdict:?}"),
        }
    }
    // Those whose token it is not have nothing to reject.
    let metrics = ca.get("/metrics").1;
    for (outcome, count) in [("vouched", 3), ("rejected", 5)] {
        let line = format!(
            "mesh_ca_authentication_count{{authenticator=\"jwt\",outcome=\"{outcome}\"}} {count}"
        );
        assert!(metrics.lines().any(|l| l == line), "no {line} in {metrics}");
    }
    let stranger = file_key.token("https://x.example", &json!({}));
    assert_eq!(
        code(&names_for(&ca, &stranger).await),
        Code::Unauthenticated
    );
    let debug: serde_json::Value = serde_json::from_str(&ca.get("/debug").1).unwrap();
    let reason = debug["refusals"][0]["reason"].as_str().unwrap();
    assert_eq!(
        reason,
        format!(
            "nobody vouches for the caller: client-certificate not presented; jwt does not apply: the token is of \
             issuer \"https://x.example\", which is none of those configured ({:?}, {:?}, \"file\")",
            kubernetes.name, ci.name
        )
    );

    // A file is followed too.
    let next = TokenKey::new("next");
    std::fs::write(&keys, json!({ "keys": [next.jwk()] }).to_string()).unwrap();
    let token = next.token("file", &json!({}));
    until(|| names_for(&ca, &token), Result::is_ok).await;
}

async fn forwarded(client: &Client, headers: &[&str]) -> Result<Vec<String>, Status> {
    let mut request = Request::new(IstioCertificateRequest {
        csr: key_and_csr(&[]).1,
        validity_duration: 0,
        metadata: None,
    });
    for header in headers {
        request
            .metadata_mut()
            .append("x-forwarded-client-cert", header.parse().unwrap());
    }
    let mut service = IstioCertificateServiceClient::new(client.channel.clone());
    let chain = service.create_certificate(request).await?.into_inner();
    let leaf = ca_core::Certificate::from_pem(chain.cert_chain[0].as_bytes()).unwrap();
    Ok(leaf.names().iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn a_forwarded_certificate_is_believed_from_a_configured_proxy_alone() {
    let cart = format!("By={GATE};Hash=ab;Subject=\"\";URI={CART}");
    let two = format!("URI={GATE},URI={CART}");
    let trusted = Running::start(&["--trusted-gateway-cidr", "10.0.0.0/8,127.0.0.0/8"]);
    let plain = Client::connect(&trusted, None, None).await;
    assert_eq!(forwarded(&plain, &[&cart]).await.unwrap(), [CART]);
    for bad in [
        &[&*two][..],
        &[&cart, &cart],
        &["URI=spiffe://other/ns/shop/sa/cart"],
        &["DNS=cart"],
        &["\"junk"],
        &[],
    ] {
        let verdict = forwarded(&plain, bad).await;
        assert_eq!(code(&verdict), Code::Unauthenticated, "{bad:?}");
    }

    // The proxy has a certificate of the mesh itself: a caller behind it never gets the proxy's name.
    let proxy = Client::connect(&trusted, None, Some(trusted.token(&[]))).await;
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = create_csr_pem(&key, &[]).unwrap();
    let answer = proxy.ask(&csr, 0).await.unwrap();
    let identity = Identity::from_pem(&answer.elements[0], key.to_pkcs8_pem().as_bytes());
    let proxy = Client::connect(&trusted, Some(identity), None).await;
    let gate = format!("URI={GATE}");
    assert_eq!(forwarded(&proxy, &[&gate]).await.unwrap(), [GATE]);
    assert_eq!(
        code(&forwarded(&proxy, &["junk"]).await),
        Code::Unauthenticated
    );
    assert_eq!(forwarded(&proxy, &[]).await.unwrap(), [CART]);

    // Neither without configuration, nor for a loopback address that is not named.
    for flags in [&[][..], &["--trusted-gateway-cidr", "10.0.0.0/8"]] {
        let ca = Running::start(flags);
        let client = Client::connect(&ca, None, None).await;
        assert_eq!(
            code(&forwarded(&client, &[&cart]).await),
            Code::Unauthenticated
        );
    }
}

async fn on_behalf(client: &Client, wanted: &str) -> Result<Vec<String>, Status> {
    let wanted = Value {
        kind: Some(Kind::StringValue(wanted.into())),
    };
    let message = IstioCertificateRequest {
        csr: key_and_csr(&[]).1,
        validity_duration: 0,
        metadata: Some(Struct {
            fields: [("ImpersonatedIdentity".into(), wanted)].into(),
        }),
    };
    let answer = client.send(message).await?;
    let names = answer.chain.leaf().names().iter();
    Ok(names.map(ToString::to_string).collect())
}

#[tokio::test]
async fn a_policy_decides_and_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    let text = r#"
        [[allow]]
        name = "cart for gate"
        callers = ["/ns/shop/sa/cart"]
        identities = ["/ns/shop/sa/gate"]

        [[limit]]
        name = "shop"
        namespaces = ["shop"]
        max-ttl = "1h"
        key-types = ["ecdsa-p256"]
    "#;
    std::fs::write(&path, text).unwrap();
    let ca = Running::start(&["--policy", path.to_str().unwrap()]);
    let client = Client::connect(&ca, None, Some(ca.token(&[]))).await;

    // Shortened, not refused: agents ask for a day everywhere.
    for (asked, expected) in [(24 * 3600, 3600), (0, 3600), (60, 60)] {
        let answer = client.ask(&key_and_csr(&[]).1, asked).await.unwrap();
        let left = (answer.chain.leaf().not_after() - now()).whole_seconds();
        assert!((expected - 5..=expected).contains(&left), "{left}");
    }
    let key = PrivateKey::generate(KeyKind::EcdsaP384).unwrap();
    let refused = client.ask(&create_csr_pem(&key, &[]).unwrap(), 0).await;
    let refused = refused.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        refused.message(),
        "CSR signing error (a key of kind ECDSA P-384 is not accepted by policy rule \"shop\")"
    );
    // Over the server's maximum is refused as ever.
    let too_long = client.ask(&key_and_csr(&[]).1, 1_000_000_000).await;
    assert_eq!(code(&too_long), Code::InvalidArgument);

    assert_eq!(on_behalf(&client, GATE).await.unwrap(), [GATE]);
    let other = on_behalf(&client, "spiffe://cluster.local/ns/bank/sa/x").await;
    assert_eq!(code(&other), Code::Unauthenticated);

    // A broken file changes nothing; a good one holds for the next request.
    std::fs::write(&path, "[[deny]]").unwrap();
    let denied =
        format!("{text}\n[[deny]]\nname = \"gone\"\nidentities = [\"/ns/shop/sa/gate\"]\n");
    assert_eq!(on_behalf(&client, GATE).await.unwrap(), [GATE]);
    std::fs::write(&path, denied).unwrap();
    until(
        || on_behalf(&client, GATE),
        |verdict| code(verdict) == Code::Unauthenticated,
    )
    .await;
    assert_eq!(names(&client).await.unwrap(), [CART]);

    // Nor does one that is cut off, as it is while somebody writes it.
    std::fs::write(&path, "").unwrap();
    let end = Instant::now() + running::DEADLINE;
    while !ca.get("/readyz").1.contains("there is nothing in it") {
        assert!(
            Instant::now() < end,
            "the empty file was not looked at in time"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let still = on_behalf(&client, GATE).await;
    assert_eq!(code(&still), Code::Unauthenticated);
}

/// Policy, issuer keys and issuer roots are replaced under those who ask: nobody notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_replaced_costs_a_request() {
    let issuer = TokenIssuer::start();
    let (old, new) = (TokenKey::new("old"), TokenKey::new("new"));
    issuer.publish(&[&old]);
    let policy = issuer.path("policy.toml");
    let write_policy = |hours: i64| {
        let text = format!("[[limit]]\nname = \"all\"\nmax-ttl = \"{hours}h\"\n");
        // As a rename, which is how a file is replaced under readers.
        let next = issuer.path("policy.next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, &policy).unwrap();
    };
    write_policy(1);
    let ca = Running::start(&[
        "--token-issuer",
        &issuer.name,
        "--token-issuer-ca",
        &issuer.ca_file(),
        "--token-keys-cooldown",
        "1ms",
        "--token-keys-refresh",
        "10ms",
        "--policy",
        policy.to_str().unwrap(),
    ]);
    let ended = Arc::new(AtomicBool::new(false));
    let mut asking = Vec::new();
    for _ in 0..4 {
        let token = old.token(&issuer.name, &json!({}));
        let client = Client::connect(&ca, None, Some(token)).await;
        let ended = Arc::clone(&ended);
        asking.push(tokio::spawn(async move {
            let mut issued = 0;
            while !ended.load(Ordering::Relaxed) {
                names(&client).await.unwrap();
                issued += 1;
            }
            issued
        }));
    }
    let token = old.token(&issuer.name, &json!({}));
    let client = Client::connect(&ca, None, Some(token)).await;
    for round in 2..6 {
        write_policy(round);
        if round % 2 == 0 {
            issuer.publish(&[&new, &old]);
        } else {
            issuer.publish(&[&old, &new]);
        }
        std::fs::write(issuer.ca_file(), std::fs::read(issuer.ca_file()).unwrap()).unwrap();
        let hours = async || {
            let answer = client.ask(&key_and_csr(&[]).1, 24 * 3600).await?;
            let left = answer.chain.leaf().not_after() - now();
            Ok::<_, Status>((left.as_seconds_f64() / 3600.0).round() as i64)
        };
        until(hours, |hours| *hours.as_ref().unwrap() == round).await;
    }
    assert_eq!(
        names_for(&ca, &new.token(&issuer.name, &json!({})))
            .await
            .unwrap(),
        [CART]
    );
    ended.store(true, Ordering::Relaxed);
    for task in asking {
        assert!(task.await.unwrap() > 0);
    }
}

#[test]
fn a_policy_is_checked_without_a_server_and_every_fault_has_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        let path = folder.path().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        let program = env!("CARGO_BIN_EXE_ca-server");
        let output = Command::new(program)
            .args(["policy", "check"])
            .arg(&path)
            .output()
            .unwrap();
        let shown = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            text.replace(path.to_str().unwrap(), "FILE")
        };
        (
            output.status.code(),
            shown(&output.stdout),
            shown(&output.stderr),
        )
    };
    let good = "[[deny]]\nname = \"a\"\nnamespaces = [\"kube-system\"]\n";
    assert_eq!(
        check(good),
        (
            Some(0),
            "FILE: good (0 allow, 1 deny, 0 limit)\n".into(),
            String::new()
        )
    );
    let bad = "[[deny]]\nname = \"a\"\n\n[[limit]]\nname = \"a\"\nmax-ttl = \"0s\"\n";
    assert_eq!(
        check(bad),
        (
            Some(1),
            String::new(),
            "ca-server: FILE: 3 wrong\n\
             FILE:2:8: a deny without a condition would refuse everybody\n\
             FILE:5:8: another rule has this name\n\
             FILE:6:11: shorter than one second\n"
                .into()
        )
    );
    let (status, _, stderr) = check("[[alow]]");
    assert_eq!(status, Some(1));
    assert!(
        stderr.contains("FILE:1:3: unknown field `alow`"),
        "{stderr}"
    );
}

#[test]
fn a_policy_is_checked_for_the_trust_domain_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let policy = file(
        "policy.toml",
        "[[allow]]\nname = \"a\"\ncallers = [\"**\"]\nidentities = [\"spiffe://mesh/ns/shop/**\"]\n",
    );
    let config = file("ca.toml", "trust-domain = \"mesh\"\n");
    let check = |flags: &[&str], more: &[&str]| {
        let words = [flags, &["policy", "check", &policy], more].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ca-server"));
        // A manifest that leaves it empty has not set it.
        let command = command.args(words).env("TRUST_DOMAIN", "");
        command.output().unwrap().status.success()
    };
    assert!(!check(&[], &[]), "the name is of another mesh");
    assert!(check(&["--config", &config], &[]));
    assert!(check(&["--trust-domain", "mesh"], &[]));
    assert!(check(&[], &["--trust-domain", "mesh"]));
    assert!(!check(&["--config", &config], &["--trust-domain", "other"]));
}

#[tokio::test]
async fn an_old_certificate_does_not_renew_by_itself() {
    // Certificates begin two minutes before they are made: these are too old from the start.
    let ca = Running::start(&["--renewal-max-age", "1m"]);
    let token = ca.token(&[]);
    let client = Client::connect(&ca, None, Some(token.clone())).await;
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = create_csr_pem(&key, &[]).unwrap();
    let answer = client.ask(&csr, 0).await.unwrap();
    let identity = || Identity::from_pem(&answer.elements[0], key.to_pkcs8_pem().as_bytes());
    let alone = Client::connect(&ca, Some(identity()), None).await;
    assert_eq!(code(&names(&alone).await), Code::Unauthenticated);
    let with_token = Client::connect(&ca, Some(identity()), Some(token)).await;
    assert_eq!(names(&with_token).await.unwrap(), [CART]);
}

#[tokio::test]
async fn with_authentication_switched_off_everybody_is_refused() {
    let ca = Running::start(&["--xds-auth", "false"]);
    let refused = names_for(&ca, &ca.token(&[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(refused.message(), "request authenticate failure");
    let count = "citadel_server_authentication_failure_count 1";
    assert!(ca.get("/metrics").1.lines().any(|line| line == count));
}

#[test]
fn a_policy_that_is_wrong_at_the_start_is_told_and_no_root_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    std::fs::write(&path, "[[deny]]\nname = \"a\"").unwrap();
    let data_dir = folder.path().join("data");
    let child = running::spawn(&data_dir, &["--policy", path.to_str().unwrap()]);
    let (status, said) = running::wait_for_failure(child);
    assert!(!status.success());
    let expected = "line 2, column 8: a deny without a condition would refuse everybody";
    assert!(said.contains(expected), "{said}");
    assert!(!data_dir.join("authority").exists());
}
