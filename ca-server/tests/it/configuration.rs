//! Flags, environment and file, and what is told about them.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use ca_core::testing::{TestCa, now};

use crate::authority::{intermediate, plug_in};
use crate::running::{self, Running};
use crate::serving::OperatorsFiles;

type Variables<'a> = &'a [(&'a str, &'a str)];

fn ca_server(variables: Variables<'_>, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ca-server"))
        .envs(variables.iter().copied())
        .args(words)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_is_typed_wins_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.toml");
    let path = path.to_str().unwrap();
    std::fs::write(
        path,
        "trust-domain = \"file.example\"\nmax-waiting = 1\naudit-keep = 1\nlog = \"warn\"\n",
    )
    .unwrap();
    let variables = [
        // Istio's name, our name for a flag without one, and one that a manifest leaves empty.
        ("TRUST_DOMAIN", "environment.example"),
        ("MESH_CA_MAX_WAITING", "2"),
        ("MESH_CA_AUDIT_KEEP", ""),
        ("MESH_CA_CONFIG", path),
    ];
    let output = ca_server(&variables, &["--max-waiting", "3", "config"]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for (key, value, origin) in [
        (
            "trust-domain",
            "\"environment.example\"",
            "environment TRUST_DOMAIN",
        ),
        ("max-waiting", "3", "flag"),
        ("audit-keep", "1", &*format!("{path}:3")),
        ("log", "\"warn\"", &*format!("{path}:4")),
        ("max-waiting-per-identity", "64", "default"),
    ] {
        let start = format!("{key} = {value} ");
        let line = shown.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("no {start:?} in\n{shown}"));
        assert!(line.ends_with(&format!(" # {origin}")), "{line}");
    }
    let output = ca_server(&[("MESH_CA_MAX_WAITING", "2")], &["config"]);
    let line = "max-waiting = 2 ";
    let shown = text(&output.stdout);
    let line = shown.lines().find(|l| l.starts_with(line)).unwrap();
    assert!(
        line.ends_with("# environment MESH_CA_MAX_WAITING"),
        "{line}"
    );
}

#[test]
fn a_file_that_is_wrong_keeps_the_server_from_starting_and_every_fault_has_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.toml");
    std::fs::write(&path, "data_dir = \"x\"\n[tokens]\n").unwrap();
    let path = path.to_str().unwrap();
    let output = ca_server(&[], &["--config", path]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let expected = format!(
        "ca-server: {path}:1:1: there is no \"data_dir\"; did you mean \"data-dir\"?\n{path}:2:2: there is no \"tokens\""
    );
    assert!(said.starts_with(&expected), "{said}");
    // What cannot be meant is told by `config` too, after what is in force.
    let words = ["--default-workload-cert-ttl", "3000h", "config"];
    let output = ca_server(&[], &words);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("default-workload-cert-ttl = \"3000h\""));
    assert!(text(&output.stderr).contains("is greater than the max"));
}

#[test]
fn an_audit_log_that_would_keep_nothing_is_refused() {
    for flag in ["--audit-max-bytes", "--audit-keep"] {
        let output = ca_server(&[], &["--audit-log", "audit.log", flag, "0", "config"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let expected = format!("invalid value '0' for '{flag} ");
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn the_server_and_its_verbs_go_by_the_file_and_log_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("ca.toml"), folder.path().join("data"));
    let (file, data) = (file.to_str().unwrap(), data.to_str().unwrap());
    let content = format!(
        "data-dir = {data:?}\nlisten = \"127.0.0.1:0\"\nadmin-listen = \"127.0.0.1:0\"\nlog-format = \"json\"\n"
    );
    std::fs::write(file, content).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ca-server"))
        .args(["--config", file])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    running::announcement(&mut child, running::DEADLINE).expect("no announcement in time");
    let status = ca_server(&[("MESH_CA_CONFIG", file)], &["status"]);
    assert!(status.status.success(), "{}", text(&status.stderr));
    let words = [
        "--config",
        file,
        "token",
        "--namespace",
        "a",
        "--service-account",
        "b",
    ];
    assert!(ca_server(&[], &words).status.success());
    running::send_signal(&child, "TERM");
    let (status, log) = running::wait_for_failure(child);
    assert!(status.success());
    assert!(log.lines().count() > 0);
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(
            line["message"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
    }
}

#[test]
fn how_connections_are_treated_goes_by_istios_names_and_never_to_no_end() {
    let variables = [
        ("GRPC_KEEPALIVE_INTERVAL", "7s"),
        ("GRPC_KEEPALIVE_TIMEOUT", "8s"),
        ("ISTIO_GPRC_MAXSTREAMS", "9"),
    ];
    let said = text(&ca_server(&variables, &["config"]).stdout);
    for line in [
        "keepalive-interval = \"7s\"",
        "keepalive-timeout = \"8s\"",
        "max-streams = 9",
    ] {
        assert!(
            said.lines().any(|l| l.starts_with(line)),
            "no {line} in {said}"
        );
    }
    assert!(
        !ca_server(&[], &["--max-streams", "0", "config"])
            .status
            .success()
    );
    // Istio logs a warning and goes by the default.
    let output = ca_server(&[("GRPC_KEEPALIVE_TIMEOUT", "soon")], &["config"]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("not a duration: \"soon\""), "{said}");
}

fn explain(ca: &Running, flags: &[&str], words: &[&str]) -> (Option<i32>, String) {
    let folder = ca.data_dir();
    let all = [
        flags,
        &["--data-dir", folder.to_str().unwrap(), "explain"],
        words,
    ]
    .concat();
    let output = ca_server(&[], &all);
    let said = text(&output.stdout) + &text(&output.stderr);
    // Columns are for eyes.
    (
        output.status.code(),
        said.split_whitespace().collect::<Vec<_>>().join(" "),
    )
}

#[test]
fn a_token_is_explained_as_the_server_would_decide() {
    let ca = Running::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let token = ca.token(&[]);
    std::fs::write(path("good"), format!("{token}\n")).unwrap();
    std::fs::write(path("other"), ca.token(&["--audience", "other"])).unwrap();
    let rules = "
        [[allow]]
        name = \"cart asks for gate\"
        callers = [\"/ns/shop/sa/cart\"]
        identities = [\"/ns/shop/sa/gate\"]
        [[deny]]
        name = \"nobody is root\"
        identities = [\"/ns/shop/sa/root\"]
        [[limit]]
        name = \"the shop lives short\"
        namespaces = [\"shop\"]
        max-ttl = \"1h\"
        key-types = [\"ecdsa-p256\"]";
    std::fs::write(path("policy"), rules).unwrap();
    let policy = ["--policy", &path("policy")];
    let (good, other) = (format!("@{}", path("good")), format!("@{}", path("other")));

    let (code, said) = explain(&ca, &[], &["--token", &good]);
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "client-certificate not presented",
        "vouches for spiffe://cluster.local/ns/shop/sa/cart, token of mesh-ca-local, until 20",
        "granted name spiffe://cluster.local/ns/shop/sa/cart by own identity",
        "lifetime 24h0m0s, at most 2160h0m0s",
        "keys ECDSA P-256, ECDSA P-384, Ed25519, RSA-2048, RSA-3072, RSA-4096",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let gate = "spiffe://cluster.local/ns/shop/sa/gate";
    let (code, said) = explain(&ca, &policy, &["--token", &good, "--impersonate", gate]);
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "granted name spiffe://cluster.local/ns/shop/sa/gate by policy rule \"cart asks for gate\"",
        "by policy rule \"the shop lives short\"",
        "lifetime 1h0m0s, at most 1h0m0s keys ECDSA P-256 not ECDSA P-384, Ed25519",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }

    let root = "spiffe://cluster.local/ns/shop/sa/root";
    let refused: [(&[&str], &[&str], &str); 4] = [
        (
            &policy,
            &["--token", &good, "--impersonate", root],
            "which policy rule \"nobody is root\" denies",
        ),
        (
            &[],
            &["--token", &good, "--impersonate", gate],
            "which no rule allows",
        ),
        (
            &[],
            &["--token", &other],
            "the caller is told Unauthenticated, request authenticate failure",
        ),
        (
            &[],
            &["--token", &good, "--ttl", "9000h"],
            "is greater than the max allowed TTL",
        ),
    ];
    // As on the wire: nothing is asked for.
    let (code, said) = explain(&ca, &[], &["--token", &good, "--ttl", "0s"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("lifetime 24h0m0s, at most"), "{said}");

    for (flags, words, part) in refused {
        let (code, said) = explain(&ca, flags, words);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("refused reason ") && said.contains(part),
            "no {part:?} in {said}"
        );
    }
    // A token that is typed is in the list of processes; at least it does not get into logs as well.
    let header = format!("Authorization: Bearer {token}");
    for words in [["--token", &token], ["--header", &header]] {
        let (code, said) = explain(&ca, &[], &words);
        assert_eq!(code, Some(1));
        assert!(said.contains("type --token @FILE"), "{said}");
        assert!(!said.contains(&token), "{said}");
    }
}

#[tokio::test]
async fn a_certificate_is_explained_and_one_of_another_mesh_does_not_even_connect() {
    let ca = Running::start(&[]);
    let client = crate::client::Client::connect(&ca, None, Some(ca.token(&[]))).await;
    let issued = client
        .ask(&crate::client::key_and_csr(&[]).1, 0)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cert.pem");
    std::fs::write(&path, issued.chain.leaf().to_pem()).unwrap();
    let (code, said) = explain(&ca, &[], &["--cert", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let serial = issued.chain.leaf().serial();
    assert!(
        said.contains(&format!("certificate {serial}, until ")),
        "{said}"
    );

    let other = TestCa::new("cluster.local");
    std::fs::write(&path, other.root_pem()).unwrap();
    let (code, said) = explain(&ca, &[], &["--cert", path.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("the connection would be refused"), "{said}");
    // Nothing was made by asking.
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().to_str().unwrap();
    let words = [
        "--data-dir",
        folder,
        "explain",
        "--header",
        "clusterid: eu-1",
    ];
    let output = ca_server(&[], &words);
    assert!(text(&output.stderr).contains("start ca-server with this --data-dir first"));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
}

fn put(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_certificate_is_explained_by_all_roots_that_the_listener_would_have() {
    let ca = Running::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let files = OperatorsFiles::new();
    let flags = files.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let id = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    let (_, chain) = files.ca.identity(&[id], Duration::from_secs(600), now());
    let cert = put(folder.path(), "cert.pem", &chain.to_pem());
    let (code, said) = explain(&ca, &flags, &["--cert", &cert]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("name spiffe://cluster.local/ns/shop/sa/cart by own identity"));

    // Members of the mesh are let in beside them: here those of a CA that is plugged in.
    let (root, plugged) = (TestCa::new("cluster.local"), folder.path().join("cacerts"));
    let (key, below) = intermediate(&root, "below");
    plug_in(&plugged, "1", &key, &below, &root.roots());
    let (_, member) = root.workload("shop", "cart");
    let cert = put(folder.path(), "cert.pem", &member.to_pem());
    let plugged = ["--root-ca-dir", plugged.to_str().unwrap()];
    let with_both = [&plugged[..], &flags].concat();
    let (code, said) = explain(&ca, &with_both, &["--cert", &cert]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = explain(&ca, &flags, &["--cert", &cert]);
    assert_eq!(code, Some(1));
    let named = format!("root-cert.pem and {}: ", files.path("ca.crt").display());
    assert!(
        said.contains("the connection would be refused") && said.contains(&named),
        "{said}"
    );
}

#[test]
fn a_forwarded_certificate_is_explained_without_an_end_and_in_the_column_of_the_others() {
    let ca = Running::start(&[]);
    let data_dir = ca.data_dir();
    let output = ca_server(
        &[],
        &[
            "--data-dir",
            data_dir.to_str().unwrap(),
            "--trusted-gateway-cidr=127.0.0.0/8",
            "explain",
            "--header",
            "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/shop/sa/cart",
        ],
    );
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}");
    let line = |start: &str| {
        let line = said.lines().find(|line| line.trim().starts_with(start));
        line.unwrap_or_else(|| panic!("no {start} in {said}"))
    };
    let forwarded = line("forwarded-certificate ");
    assert!(
        forwarded.ends_with("  vouches for spiffe://cluster.local/ns/shop/sa/cart"),
        "{forwarded}"
    );
    let columns = [
        forwarded.find("vouches"),
        line("jwt").find("not presented"),
        line("by ").find("own identity"),
    ];
    assert!(
        columns.iter().all(|at| *at == columns[0] && at.is_some()),
        "{said}"
    );

    // Any of the three is enough.
    let output = ca_server(&[], &["explain"]);
    let usage = text(&output.stderr);
    assert!(
        usage.contains("<--token <@FILE>|--cert <FILE>|--header <NAME: VALUE>>"),
        "{usage}"
    );
}

/// What `config` says must be what the server would say: by the same words.
#[test]
fn config_fails_where_a_file_keeps_the_server_from_starting_and_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let broken = put(folder, "policy.toml", "nonsense = 1\n");
    let junk = put(folder, "junk.pem", "junk");
    let cacerts = folder.join("cacerts");
    std::fs::create_dir(&cacerts).unwrap();
    put(&cacerts, "ca-cert.pem", "junk");
    let cacerts = cacerts.to_str().unwrap();
    let missing = folder.join("missing");
    let missing = missing.to_str().unwrap();
    let data_dir = folder.join("data");
    let common = [
        "--data-dir",
        data_dir.to_str().unwrap(),
        "--listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
    ];
    let tls = |file| {
        [
            "--ca-cert-file",
            file,
            "--tls-cert-file",
            file,
            "--tls-key-file",
            file,
        ]
    };
    let cases: &[(&[&str], &str)] = &[
        (&["--policy", missing], "ca-server: policy "),
        (&["--policy", &broken], "ca-server: policy "),
        (
            &["--root-ca-dir", cacerts],
            "incomplete signing CA bundle detected",
        ),
        (&tls(missing), "ca-server: serving certificate: "),
        (&tls(&junk), "ca-server: serving certificate: "),
        (
            &[
                "--upstream-ca-addr=127.0.0.1:1",
                "--upstream-ca-root",
                &junk,
                "--upstream-ca-token-file=token",
            ],
            "junk.pem: ",
        ),
        (&["--namespace", "a b"], "not a DNS name: "),
    ];
    for (flags, told) in cases {
        let words = [&common[..], flags, &["config"]].concat();
        let config = ca_server(&[], &words);
        assert_eq!(config.status.code(), Some(1), "{flags:?}");
        assert!(text(&config.stdout).contains("max-waiting = "), "{flags:?}");
        let said = text(&config.stderr);
        assert!(said.contains(told), "{flags:?} said {said:?}");
        assert!(!data_dir.exists(), "{flags:?}");
        // By a server that is sure to end, in a folder of its own.
        let child = running::spawn(&folder.join("server"), flags);
        let (status, server) = running::wait_for_failure(child);
        assert!(!status.success());
        assert_eq!(server.lines().last(), said.lines().last(), "{flags:?}");
    }
    let good = [&common[..], &["config"]].concat();
    assert!(ca_server(&[], &good).status.success());
    assert!(!data_dir.exists());
}

#[test]
fn what_would_not_be_done_as_it_is_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let keys = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let keys = put(folder.path(), "keys.json", keys);
    let issuers = format!("[[issuer]]\nname = \"a\"\nkeys = {keys:?}\nclock-skew = \"6m\"\n");
    let issuers = put(folder.path(), "issuers.toml", &issuers);
    for (flags, told) in [
        (
            ["--keepalive-interval", "100ms"],
            "'--keepalive-interval <DURATION>': at least 1s",
        ),
        (
            ["--token-clock-skew", "10m"],
            "'--token-clock-skew <DURATION>': at most 5m0s",
        ),
        (
            ["--token-issuers", &issuers],
            ": issuer \"a\": clock-skew: at most 5m0s",
        ),
    ] {
        let output = ca_server(&[], &[&flags[..], &["config"]].concat());
        assert!(!output.status.success(), "{flags:?}");
        let said = text(&output.stderr);
        assert!(said.contains(told), "{flags:?} said {said:?}");
    }
}

#[test]
fn a_password_in_an_address_is_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let url = "https://user:sekret@issuer.example/jwks";
    let rule = format!(r#"{{"issuer":"a","jwks_uri":"{url}"}}"#);
    let escaped = rule.replace('/', "\\/");
    let file = put(
        folder.path(),
        "ca.toml",
        &format!("token-issuer-keys = {url:?}\nlisten = {url:?}\n"),
    );
    // With what is wrong behind it, so that the line is shown.
    let issuers = format!("[[issuer]]\nname = \"a\"\nkeys = {url:?} x\n");
    let issuers = put(folder.path(), "issuers.toml", &issuers);
    let cases: [(Variables<'_>, &[&str]); 8] = [
        (&[], &["--token-issuer-keys", url]),
        (&[], &["--token-issuer-keys", "https://user:sek/sekret@h/"]),
        (&[], &["--token-issuer", url]),
        (&[], &["--jwt-rule", &rule]),
        (&[], &["--jwt-rule", &escaped]),
        (&[], &["--upstream-ca-addr", url]),
        (&[], &["--config", &file]),
        (&[("MESH_CA_LISTEN", url)], &["--token-issuers", &issuers]),
    ];
    for (variables, flags) in cases {
        let output = ca_server(variables, &[flags, &["config"]].concat());
        assert!(!output.status.success(), "{flags:?}");
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains("sekret"), "{flags:?}: {said}");
        assert!(
            said.contains("https:") && said.contains("…@"),
            "{flags:?}: {said}"
        );
    }
    let output = ca_server(&[], &["--token-issuers", &issuers, "config"]);
    let said = text(&output.stderr);
    assert!(
        said.contains("issuers.toml:3:") && !said.contains("sekret"),
        "{said}"
    );
}

#[test]
fn what_is_wrong_is_blamed_on_where_it_stands_and_told_by_what_is_expected() {
    let cases: [(Variables<'_>, &[&str], &str); 9] = [
        (
            &[("GRPC_KEEPALIVE_TIMEOUT", "soon")],
            &[],
            "ca-server: GRPC_KEEPALIVE_TIMEOUT: invalid value 'soon' for '--keepalive-timeout <DURATION>': not a duration",
        ),
        (
            &[("MESH_CA_MAX_WAITING", "many")],
            &[],
            "ca-server: MESH_CA_MAX_WAITING: invalid value 'many'",
        ),
        // What is typed wins, and then the variable has nothing to do with it.
        (
            &[("MESH_CA_MAX_WAITING", "1")],
            &["--max-waiting", "many"],
            "error: invalid value 'many' for '--max-waiting <COUNT>': not a whole number from 1 on",
        ),
        (&[], &["--max-waiting", "0"], "not a whole number from 1 on"),
        (
            &[],
            &["--root-grace-percent", "101"],
            "not a whole number from 0 to 100",
        ),
        (
            &[],
            &["--listen", "localhost:15012"],
            "not an IP address with a port (write it like 127.0.0.1:15012",
        ),
        (
            &[],
            &["--serving-cert", "foo"],
            "'--serving-cert <NAME=HOST,...>': not NAME=HOST,...",
        ),
        (
            &[],
            &["--log", "nonsense=[["],
            "invalid value 'nonsense=[[' for '--log <FILTER>': ",
        ),
        (
            &[("RUST_LOG", "nonsense=[[")],
            &[],
            "ca-server: RUST_LOG: invalid value 'nonsense=[['",
        ),
    ];
    for (variables, flags, told) in cases {
        let output = ca_server(variables, &[flags, &["config"]].concat());
        assert!(!output.status.success(), "{variables:?} {flags:?}");
        let said = text(&output.stderr);
        assert!(said.contains(told), "{variables:?} {flags:?} said {said:?}");
        assert!(output.stdout.is_empty(), "{variables:?} {flags:?}");
    }
    // Also where the file has a good value: the variable would win, if it were one.
    let folder = tempfile::tempdir().unwrap();
    let file = put(folder.path(), "ca.toml", "max-waiting = 7\n");
    let output = ca_server(
        &[("MESH_CA_MAX_WAITING", "many")],
        &["--config", &file, "config"],
    );
    let said = text(&output.stderr);
    assert!(
        said.starts_with("ca-server: MESH_CA_MAX_WAITING: "),
        "{said}"
    );
}
