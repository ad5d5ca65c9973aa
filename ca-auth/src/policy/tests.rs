use time::OffsetDateTime;

use super::*;
use crate::authorizer::{Authorizer, AuthzError, Grant};
use crate::caller::Identities as Names;

fn policy(text: &str) -> Policy {
    let mesh = "mesh".parse().unwrap();
    Policy::parse(text, &mesh).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(text: &str) -> Vec<String> {
    let mesh = "mesh".parse().unwrap();
    let error = Policy::parse(text, &mesh).map(|_| ()).unwrap_err();
    error.problems().iter().map(ToString::to_string).collect()
}

fn token(names: &[&str]) -> Caller {
    let issuer = Some("https://issuer.example".into());
    caller(names, Source::Token { issuer })
}

fn caller(names: &[&str], source: Source) -> Caller {
    let names = names.iter().map(|name| id(name)).collect();
    let names = Names::new(names).unwrap();
    Caller::new("test", source, names, OffsetDateTime::UNIX_EPOCH)
}

fn id(path: &str) -> SpiffeId {
    format!("spiffe://mesh{path}").parse().unwrap()
}

fn ask(text: &str, caller: Caller, wanted: Option<&str>) -> Result<Grant, AuthzError> {
    let wanted = wanted.map(|path| id(path).to_string());
    Authorizer::by_policy(policy(text)).authorize(caller, wanted.as_deref())
}

fn rules(grant: &Grant) -> Vec<String> {
    grant.rules().iter().map(ToString::to_string).collect()
}

const CART: &str = "/ns/shop/sa/cart";
const EDGE: &str = "/ns/gateways/sa/edge";

#[test]
fn a_policy_without_rules_is_own_names_only() {
    let text = "own-identity = \"allow\"";
    let grant = ask(text, token(&[CART]), None).unwrap();
    assert_eq!(rules(&grant), ["own identity"]);
    assert_eq!(grant.max_ttl(), None);
    assert!(ask(text, token(&[CART]), Some(EDGE)).is_err());
}

#[test]
fn a_file_that_is_cut_off_is_no_policy_and_neither_is_one_of_another_language() {
    for text in [
        "",
        "\n",
        " \t\r\n",
        "# rules follow\n\n  # [[deny]]\n",
        "\u{feff}",
    ] {
        assert_eq!(
            problems(text),
            [
                "line 1, column 1: there is nothing in it (own names and no others are written: own-identity = \"allow\")"
            ],
            "{text:?}"
        );
    }
    let yaml = problems("deny:\n  - name: x\n");
    assert!(
        yaml[0].starts_with("line 1, column ") && yaml[0].ends_with(" (a policy file is TOML)"),
        "{yaml:?}"
    );
    let unknown = problems("own-names = \"allow\"");
    assert!(!unknown[0].contains("TOML"), "{unknown:?}");
}

#[test]
fn who_may_act_for_others_is_named_and_nobody_else_may() {
    let text = r#"
        [[allow]]
        name = "edge"
        callers = ["/ns/gateways/sa/edge"]
        sources = ["token"]
        identities = ["/ns/shop/**"]
    "#;
    let grant = ask(text, token(&[EDGE]), Some(CART)).unwrap();
    assert_eq!(rules(&grant), ["policy rule \"edge\""]);
    assert_eq!(grant.identities(), [id(CART)]);
    // Its own name as before.
    assert_eq!(
        rules(&ask(text, token(&[EDGE]), None).unwrap()),
        ["own identity"]
    );

    assert!(ask(text, token(&[EDGE]), Some("/ns/bank/sa/cart")).is_err());
    assert!(ask(text, token(&["/ns/gateways/sa/other"]), Some(CART)).is_err());
    let serial = String::new();
    let with_certificate = caller(&[EDGE], Source::ClientCertificate { serial });
    assert!(ask(text, with_certificate, Some(CART)).is_err());
    let foreign = Authorizer::by_policy(policy(text))
        .authorize(token(&[EDGE]), Some("spiffe://other/ns/shop/sa/cart"));
    assert!(foreign.is_err(), "a path alone is in our trust domain");
}

#[test]
fn a_denial_wins_and_says_which_rule_it_was() {
    let text = r#"
        [[allow]]
        name = "all for all"
        callers = ["**"]
        identities = ["**"]

        [[deny]]
        name = "system"
        namespaces = ["kube-system"]

        [[deny]]
        name = "stolen"
        callers = ["/ns/shop/sa/leaked"]
    "#;
    assert!(ask(text, token(&[CART]), Some(EDGE)).is_ok());
    let system = "/ns/kube-system/sa/admin";
    for (caller, wanted, rule) in [
        (&[CART][..], Some(system), "system"),
        (&[system], None, "system"),
        (&["/ns/shop/sa/leaked"], None, "stolen"),
        (&["/ns/shop/sa/leaked"], Some(CART), "stolen"),
        // One name is denied, so all are: less than what was asked for would surprise.
        (&[CART, system], None, "system"),
    ] {
        let error = ask(text, token(caller), wanted).unwrap_err();
        let AuthzError::Denied { rule: found, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(found.to_string(), format!("policy rule {rule:?}"));
        assert!(error.to_string().contains(rule), "{error}");
    }
}

#[test]
fn own_names_can_be_made_subject_to_rules_too() {
    let text = r#"
        own-identity = "deny"
        [[allow]]
        name = "shop"
        caller-namespaces = ["shop"]
        identities = ["own"]
        [[allow]]
        name = "of one issuer"
        issuers = ["https://issuer.example"]
        identities = ["own", "/extra"]
    "#;
    let issuer = |name: &str| Source::Token {
        issuer: Some(name.into()),
    };
    let other = || issuer("https://other.example");
    for (who, source, wanted, rule) in [
        (CART, other(), None, Some("shop")),
        (EDGE, other(), None, None),
        (EDGE, Source::Token { issuer: None }, None, None),
        (
            EDGE,
            issuer("https://issuer.example"),
            None,
            Some("of one issuer"),
        ),
        (
            EDGE,
            issuer("https://issuer.example"),
            Some("/extra"),
            Some("of one issuer"),
        ),
        (CART, other(), Some("/ns/shop/sa/gate"), None),
    ] {
        let grant = ask(text, caller(&[who], source.clone()), wanted);
        let expected = rule.map(|rule| vec![format!("policy rule {rule:?}")]);
        assert_eq!(
            grant.ok().as_ref().map(rules),
            expected,
            "{who} {source:?} {wanted:?}"
        );
    }
}

#[test]
fn every_limit_that_applies_holds() {
    let text = r#"
        [[limit]]
        name = "all"
        max-ttl = "12h"
        key-types = ["ecdsa-p256", "ecdsa-p384", "rsa-3072", "ed25519"]
        [[limit]]
        name = "shop"
        identities = ["/ns/shop/**"]
        max-ttl = "1h"
        key-types = ["rsa", "ecdsa-p256"]
        [[limit]]
        name = "long"
        identities = ["/ns/shop/**"]
        max-ttl = "90m"
    "#;
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let grant = ask(text, token(&[CART]), None).unwrap();
    assert_eq!(grant.max_ttl(), Some(hours(1)));
    assert_eq!(grant.lifetime(hours(24)), hours(1));
    assert_eq!(grant.lifetime(hours(1) / 2), hours(1) / 2);
    assert_eq!(
        rules(&grant),
        [
            "own identity",
            "policy rule \"shop\"",
            "policy rule \"all\""
        ]
    );
    let rsa = |bits| PublicKeyKind::Rsa { bits };
    for (kind, rule) in [
        (PublicKeyKind::EcdsaP256, None),
        (rsa(3072), None),
        (rsa(2048), Some("all")),
        (PublicKeyKind::Ed25519, Some("shop")),
        (PublicKeyKind::EcdsaP384, Some("shop")),
    ] {
        let refused = grant.check_key(kind).err().map(|error| error.to_string());
        let expected = rule
            .map(|rule| format!("a key of kind {kind} is not accepted by policy rule {rule:?}"));
        assert_eq!(refused, expected);
    }
    // Several names in one certificate: the limits of all of them.
    let both = ask(text, token(&[EDGE, CART]), None).unwrap();
    assert_eq!(both.max_ttl(), Some(hours(1)));
    assert_eq!(
        ask(text, token(&[EDGE]), None).unwrap().max_ttl(),
        Some(hours(12))
    );
}

#[test]
fn everything_that_is_wrong_is_told_with_its_place() {
    let text = r#"
own-identity = "allow"

[[allow]]
name = "a"
callers = ["shop", "/ns/*/sa/x"]
identities = []
max-ttl = "1h"

[[deny]]
name = "a"

[[limit]]
name = " "
sources = ["token", "cookie"]

[[limit]]
name = "b"
max-ttl = "soon"
key-types = ["ecdsa-p256", "dsa"]
namespaces = ["a/b", "own"]

[[allow]]
name = "c"
identities = ["own"]
"#;
    let found = problems(text);
    let expected = [
        "line 6, column 12: a pattern starts with / or spiffe://, or is **",
        "line 7, column 14: an empty list: leave the key out, or say what is meant",
        "line 8, column 11: only a [[limit]] has this",
        "line 11, column 8: another rule has this name",
        "line 11, column 8: a deny without a condition would refuse everybody",
        "line 14, column 8: a limit has a max-ttl or key-types",
        "line 14, column 8: an empty name tells nobody which rule it was",
        "line 15, column 21: not a source: certificate, token, forwarded-certificate",
        "line 19, column 11: ",
        "line 20, column 28: not a key type: ",
        "line 21, column 15: ",
        "line 24, column 8: say which callers: ",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} is not {expected}");
    }
}

#[test]
fn who_may_be_a_ca_is_said_by_a_rule_of_its_own_and_by_no_allow() {
    let text = r#"
        own-identity = "deny"
        [[allow]]
        name = "all for all"
        callers = ["**"]
        identities = ["**", "own"]
        [[certificate-authority]]
        name = "edge"
        callers = ["/ns/gateways/sa/edge"]
        sources = ["token"]
        max-ttl = "720h"
        [[certificate-authority]]
        name = "deep"
        caller-namespaces = ["mesh"]
        max-path-length = 2
        name-constraint = true
        [[limit]]
        name = "short"
        namespaces = ["mesh"]
        max-ttl = "1h"
        key-types = ["ecdsa-p384"]
        [[deny]]
        name = "stolen"
        callers = ["/ns/mesh/sa/leaked"]
    "#;
    let ask = |caller: Caller, other: Option<&str>| {
        Authorizer::by_policy(policy(text)).authorize_authority(caller, other)
    };
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let edge = ask(token(&[EDGE]), Some("")).unwrap();
    assert_eq!((edge.max_path_length(), edge.is_constrained()), (0, false));
    assert_eq!(edge.lifetime(hours(2000)), hours(720));
    assert!(edge.check_key(PublicKeyKind::EcdsaP256).is_ok());
    assert_eq!(edge.rules()[0].to_string(), "policy rule \"edge\"");
    let deep = ask(token(&["/ns/mesh/sa/ca"]), None).unwrap();
    assert_eq!((deep.max_path_length(), deep.is_constrained()), (2, true));
    assert_eq!(deep.lifetime(hours(2000)), hours(1));
    assert!(deep.check_key(PublicKeyKind::EcdsaP256).is_err());

    let certificate = Source::ClientCertificate {
        serial: String::new(),
    };
    for (caller, other, reason) in [
        (
            token(&[CART]),
            None,
            "asks to be a CA, which no rule allows",
        ),
        (caller(&[EDGE], certificate), None, "no rule allows"),
        (token(&[EDGE]), Some(CART), "no rule allows"),
        (
            token(&["/ns/mesh/sa/leaked"]),
            None,
            "which policy rule \"stolen\" denies",
        ),
    ] {
        let error = ask(caller, other).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let nobody = Authorizer::own_names().authorize_authority(token(&[EDGE]), None);
    assert!(nobody.is_err(), "without a policy nobody is a CA");
}

#[test]
fn rules_about_cas_and_other_rules_do_not_mix() {
    let text = r#"
[[certificate-authority]]
name = "a"
sources = ["token"]
identities = ["/x"]
key-types = ["rsa"]
max-ttl = "0s"

[[allow]]
name = "b"
callers = ["**"]
identities = ["own"]
max-path-length = 1

[[limit]]
name = "c"
max-ttl = "1h"
name-constraint = true
"#;
    let found = problems(text);
    let expected = [
        "line 3, column 8: say which callers: ",
        "line 5, column 14: a CA's certificate has no name of the mesh",
        "line 6, column 13: only a [[limit]] has this",
        "line 7, column 11: shorter than one second",
        "line 13, column 19: only a [[certificate-authority]] has this",
        "line 18, column 19: only a [[certificate-authority]] has this",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} is not {expected}");
    }
}

#[test]
fn names_of_another_trust_domain_are_given_by_no_rule() {
    let allow = |identity: &str| {
        format!(
            "[[allow]]\nname = \"a\"\ncallers = [\"**\"]\nidentities = [\"/x\", \"{identity}\"]"
        )
    };
    assert_eq!(
        problems(&allow("spiffe://other/ns/shop/**")),
        ["line 4, column 21: lies in another trust domain, whose names this CA does not give"]
    );
    // Its own, written in full, is its own; and what is refused or limited may be anywhere.
    policy(&allow("spiffe://mesh/ns/shop/**"));
    policy("[[deny]]\nname = \"a\"\nidentities = [\"spiffe://other/**\"]");
    for foreign in ["spiffe://other/ns/shop/sa/cart", "spiffe://other/x"] {
        let all = policy(&allow("**"));
        let grant = Authorizer::by_policy(all).authorize(token(&[CART]), Some(foreign));
        assert!(grant.is_err(), "{foreign}");
    }
}

#[test]
fn what_is_not_known_is_refused_and_not_passed_over() {
    for (text, start) in [
        (
            "[[allow]]\nname = \"a\"\ncaller = [\"**\"]",
            "line 3, column 1: unknown field `caller`",
        ),
        (
            "[[alow]]\nname = \"a\"",
            "line 1, column 3: unknown field `alow`",
        ),
        (
            "own-identity = \"maybe\"",
            "line 1, column 16: unknown variant `maybe`",
        ),
        (
            "[[deny]]\ncallers = [\"**\"]",
            "line 1, column 1: missing field `name`",
        ),
        ("[[deny]]\nname = \"\u{f6}\" callers", "line 2, column 12: "),
        (
            "[[deny]]\nname = 7",
            "line 2, column 8: invalid type: integer",
        ),
    ] {
        let found = problems(text);
        assert!(
            found.len() == 1 && found[0].starts_with(start),
            "{text:?}: {found:?}"
        );
    }
}

#[test]
fn the_example_in_the_documentation_is_a_policy() {
    let source = include_str!("../policy.rs");
    let lines = source
        .lines()
        .skip_while(|line| *line != "/// ```toml")
        .skip(1);
    let example: Vec<_> = lines
        .take_while(|line| *line != "/// ```")
        .map(|line| line.trim_start_matches("///").trim_start())
        .collect();
    assert_eq!(policy(&example.join("\n")).len(), (1, 1, 1));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC*", table in "(allow|deny|limit|certificate-authority)", value in "[a-z*/\"\u{f6}\\[\\], .{}=]{0,30}") {
        let mesh = "mesh".parse().unwrap();
        let _ = Policy::parse(&text, &mesh);
        let _ = Policy::parse(&format!("[[{table}]]\nname = \"x\"\nidentities = [\"{value}\"]\nmax-ttl = {value}"), &mesh);
        let _ = Policy::parse(&format!("[[{table}]]\nname = \"x\"\nidentities = [{value}]"), &mesh);
    }
}
