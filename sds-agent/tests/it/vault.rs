//! The agent with a CA that speaks the API of Vault and OpenBao, over real TLS. A real one has not been met yet.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ca_core::{
    Csr, SubjectName,
    testing::{TestCa, now},
};
use serde_json::{Value, json};

use crate::{
    agent::{Agent, Home, checked_chain, soon},
    rest::{Call, Reply, Rest, certify},
};

const HOUR: Duration = Duration::from_secs(3600);

/// What the server thinks of tokens.
#[derive(Clone)]
struct Vault {
    ca: TestCa,
    /// The tokens that are good: those that were given out, but for the revoked ones.
    good: Arc<Mutex<Vec<String>>>,
    logins: Arc<AtomicUsize>,
    lease: u64,
    /// What is said instead of signing, while there is something.
    trouble: Arc<Mutex<Vec<Reply>>>,
    lifetime: Duration,
}

impl Vault {
    fn new() -> Self {
        Self {
            ca: TestCa::new("cluster.local"),
            good: Arc::new(Mutex::new(vec!["file-token".to_owned()])),
            logins: Arc::default(),
            lease: 3600,
            trouble: Arc::default(),
            lifetime: HOUR,
        }
    }

    async fn start(&self) -> Rest {
        let vault = self.clone();
        Rest::over_tls(&self.ca, move |call| vault.answer(call)).await
    }

    fn answer(&self, call: &Call) -> Reply {
        assert_eq!(call.method, "POST");
        assert_eq!(call.header("x-vault-request"), "true");
        let denied = (403, json!({"errors": ["permission denied"]}));
        if call.path == "/v1/auth/kubernetes/login" {
            assert_eq!(call.header("x-vault-token"), "");
            let body = call.json();
            let jwt = body["jwt"].as_str().unwrap();
            if body["role"] != "mesh" || !["good-token", "another-token"].contains(&jwt) {
                return denied;
            }
            let number = self.logins.fetch_add(1, Ordering::Relaxed);
            let token = format!("s.{number}");
            self.good.lock().unwrap().push(token.clone());
            let lease = self.lease;
            let auth = json!({"client_token": token, "lease_duration": lease, "renewable": true});
            return (200, json!({ "auth": auth }));
        }
        let token = call.header("x-vault-token").to_owned();
        if !self.good.lock().unwrap().contains(&token) {
            return denied;
        }
        if call.path == "/v1/auth/token/renew-self" {
            let lease = self.lease;
            let auth = json!({"client_token": token, "lease_duration": lease, "renewable": true});
            return (200, json!({ "auth": auth }));
        }
        if call.path == "/v1/auth/token/revoke-self" {
            self.good.lock().unwrap().retain(|good| *good != token);
            return (204, Value::Null);
        }
        assert_eq!(call.path, "/v1/pki/sign/mesh");
        if let Some(trouble) = self.trouble.lock().unwrap().pop() {
            return trouble;
        }
        self.signed(&call.json())
    }

    fn signed(&self, body: &Value) -> Reply {
        assert_eq!(body["uri_sans"], "spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(
            (&body["format"], &body["ttl"]),
            (&json!("pem"), &json!("86400s"))
        );
        let (leaf, roots) = certify(&self.ca, body["csr"].as_str().unwrap(), self.lifetime);
        // Without a line feed at the end, as Vault sends them.
        let (leaf, root) = (leaf.trim(), roots.to_pem().trim());
        let data = json!({"certificate": leaf, "issuing_ca": root, "ca_chain": [root]});
        (200, json!({ "data": data }))
    }
}

/// An agent that logs in, or one whose token file holds a token of Vault's.
fn agent(vault: &Vault, server: &Rest, token: &str, more: &[&str]) -> Agent {
    let home = Home::with(&vault.ca.roots(), token);
    let address = format!("https://{}", server.address);
    let mut flags = vec!["--ca-addr", &address, "--ca-provider", "Vault"];
    flags.extend(["--vault-sign-path", "pki/sign/mesh"]);
    flags.extend(more);
    Agent::start_with(home, &flags)
}

const LOGIN: [&str; 4] = [
    "--vault-login-path",
    "auth/kubernetes/login",
    "--vault-role",
    "mesh",
];

#[tokio::test]
async fn vault_signs_for_who_logs_in_and_keeps_the_login() {
    let vault = Vault::new();
    let server = vault.start().await;
    let flags = [&LOGIN[..], &["--vault-namespace", "team/a"]].concat();
    let agent = agent(&vault, &server, "good-token", &flags);
    let mut pair = agent.subscribe(&["default"]).await;
    let first = checked_chain(&pair.accept().await[0], &vault.ca.roots());
    assert_eq!(first.iter().count(), 1, "a root is not served");
    agent.renew();
    assert_ne!(
        checked_chain(&pair.accept().await[0], &vault.ca.roots()),
        first
    );
    let sign = "/v1/pki/sign/mesh";
    assert_eq!(server.paths(), ["/v1/auth/kubernetes/login", sign, sign]);
    for call in server.seen() {
        assert_eq!(call.header("x-vault-namespace"), "team/a");
    }
    assert!(agent.get("/debug/sds").await.1.contains("serial"));
}

#[tokio::test]
async fn a_token_of_vault_in_the_file_is_used_and_renewed() {
    let vault = Vault::new();
    let server = vault.start().await;
    let agent = agent(&vault, &server, "file-token\n", &[]);
    agent.subscribe(&["default"]).await.accept().await;
    server.saw(|call| call.path.ends_with("renew-self")).await;
    let tokens = server.seen();
    assert!(
        tokens
            .iter()
            .all(|call| call.header("x-vault-token") == "file-token")
    );
}

#[tokio::test]
async fn a_login_that_was_revoked_is_made_again_once_and_a_lease_is_renewed() {
    let mut vault = Vault::new();
    let server = vault.start().await;
    let agent = agent(&vault, &server, "good-token", &LOGIN);
    let mut pair = agent.subscribe(&["default"]).await;
    pair.accept().await;
    vault.good.lock().unwrap().clear();
    agent.renew();
    pair.accept().await;
    let (login, sign) = ("/v1/auth/kubernetes/login", "/v1/pki/sign/mesh");
    let back = "/v1/auth/token/revoke-self";
    assert_eq!(server.paths(), [login, sign, sign, back, login, sign]);

    // A lease of three seconds, and certificates that are renewed more often.
    (vault.lease, vault.lifetime) = (3, Duration::from_secs(3));
    let server = vault.start().await;
    let agent = self::agent(&vault, &server, "good-token", &LOGIN);
    let mut pair = agent.subscribe(&["default"]).await;
    for _ in 0..3 {
        pair.accept().await;
    }
    let paths = server.paths();
    let again = |path: &&String| path.ends_with("renew-self") || path.ends_with("login");
    assert!(paths.iter().filter(again).count() >= 2, "{paths:?}");
}

#[tokio::test]
async fn what_vault_refuses_is_said_and_only_what_may_pass_is_repeated_at_once() {
    for (status, tries) in [(503, 5), (429, 5), (400, 1), (403, 1)] {
        let vault = Vault::new();
        let trouble = (status, json!({"errors": ["not now"]}));
        *vault.trouble.lock().unwrap() = vec![trouble; tries];
        let server = vault.start().await;
        let agent = agent(&vault, &server, "good-token", &LOGIN);
        let mut pair = agent.subscribe(&["default"]).await;
        let reason = format!("HTTP {status}: not now");
        agent
            .becomes("/readyz", |_, body| body.contains(&reason))
            .await;
        checked_chain(&pair.accept().await[0], &vault.ca.roots());
        let sign = |path: &&String| path.ends_with("sign/mesh");
        assert_eq!(server.paths().iter().filter(sign).count(), tries + 1);
    }
}

#[tokio::test]
async fn a_new_login_that_is_refused_is_given_back() {
    let vault = Vault::new();
    let denied = (403, json!({"errors": ["permission denied"]}));
    *vault.trouble.lock().unwrap() = vec![denied.clone(), denied];
    let server = vault.start().await;
    let agent = agent(&vault, &server, "good-token", &LOGIN);
    let mut pair = agent.subscribe(&["default"]).await;
    checked_chain(&pair.accept().await[0], &vault.ca.roots());
    let attempt = [
        "/v1/auth/kubernetes/login",
        "/v1/pki/sign/mesh",
        "/v1/auth/token/revoke-self",
    ];
    let paths = [&attempt[..], &attempt, &attempt[..2]].concat();
    assert_eq!(server.paths(), paths);
    // The third login, and the token that a person has.
    assert_eq!(*vault.good.lock().unwrap(), ["file-token", "s.2"]);
}

#[tokio::test]
async fn a_login_that_is_refused_gives_way_when_the_file_has_another_token() {
    let vault = Vault::new();
    let not_yours = (400, json!({"errors": ["not valid for this role"]}));
    *vault.trouble.lock().unwrap() = vec![not_yours.clone(), not_yours.clone(), not_yours];
    let server = vault.start().await;
    let agent = agent(&vault, &server, "another-token", &LOGIN);
    let mut pair = agent.subscribe(&["default"]).await;
    // The same login as often as the token is the same.
    let sign = |call: &Call| call.path.ends_with("sign/mesh");
    server.saw_times(2, sign).await;
    agent.home.write_token("good-token");
    checked_chain(&pair.accept().await[0], &vault.ca.roots());
    let paths = server.paths();
    let logins = paths.iter().filter(|path| path.ends_with("login")).count();
    assert_eq!(logins, 2, "{paths:?}");
    assert_eq!(*vault.good.lock().unwrap(), ["file-token", "s.1"]);
}

#[tokio::test]
async fn a_replaced_token_ends_the_wait_after_a_refusal() {
    let vault = Vault::new();
    let server = vault.start().await;
    let agent = agent(&vault, &server, "bad-token", &LOGIN);
    let mut pair = agent.subscribe(&["default"]).await;
    let denied = "refused: HTTP 403: permission denied";
    let body = agent
        .becomes("/readyz", |_, body| body.contains(denied))
        .await;
    assert!(!body.contains("bad-token"), "{body}");
    // Until the wait is far longer than a look at the file takes.
    server
        .saw_times(5, |call| call.path.ends_with("login"))
        .await;
    agent.home.write_token("good-token");
    let pair = soon("well before the wait is over", pair.accept());
    checked_chain(
        &tokio::time::timeout(Duration::from_millis(3500), pair)
            .await
            .unwrap()[0],
        &vault.ca.roots(),
    );
}

#[tokio::test]
async fn unfit_certificates_of_vault_are_never_published() {
    let vault = Vault::new();
    let ca = vault.ca.clone();
    let server = Rest::over_tls(&ca.clone(), move |call| {
        let csr = Csr::from_pem(call.json()["csr"].as_str().unwrap().as_bytes()).unwrap();
        let names = [SubjectName::from(ca.id("shop", "admin"))];
        let issued = ca.issue(&csr, &names, HOUR, now());
        let leaf = issued.chain().leaf().to_pem();
        (
            200,
            json!({"data": {"certificate": leaf, "ca_chain": [ca.root_pem()]}}),
        )
    })
    .await;
    let agent = agent(&vault, &server, "file-token", &[]);
    let mut pair = agent.subscribe(&["default"]).await;
    agent
        .becomes("/readyz", |_, body| body.contains("sa/admin"))
        .await;
    assert!(pair.is_silent().await);
}
