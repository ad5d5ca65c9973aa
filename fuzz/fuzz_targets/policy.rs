#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use ca_auth::{Authorizer, Caller, Identities, Policy, Source};
use ca_core::{PublicKeyKind, SpiffeId};
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::fixed::NOW;
use mesh_ca_fuzz::rulebook::Rulebook;

// What is wrong with a policy has a place in the text. What an accepted one grants, and within which limits, is what a
// plain reading of its tables says, for callers of every kind; and nobody gets more than asked for.
fuzz_target!(|text: &str| {
    let mesh = "cluster.local".parse().expect("a mesh");
    let policy = match Policy::parse(text, &mesh) {
        Ok(policy) => policy,
        Err(error) => return check_places(text, error.problems()),
    };
    let rulebook = Rulebook::read(text);
    assert_eq!(policy.len(), rulebook.len());
    let authorizer = Authorizer::by_policy(policy);
    for caller in &*CALLERS {
        for wanted in [None].into_iter().chain(WANTED.iter().map(Some)) {
            let asked = match wanted {
                None => caller.identities.as_slice(),
                Some(wanted) => std::slice::from_ref(wanted),
            };
            let given = rulebook.judge(caller, asked);
            let grant = authorizer.authorize(caller.clone(), wanted.map(SpiffeId::as_str));
            assert_eq!(grant.is_ok(), given.is_some(), "{caller:?} and {wanted:?}");
            let (Ok(grant), Some(given)) = (grant, given) else {
                continue;
            };
            assert_eq!(grant.identities(), asked);
            for id in asked {
                let is_own = caller.identities.as_slice().contains(id);
                assert!(is_own || id.is_in(&mesh), "another mesh");
                assert!(is_own || !id.path().is_empty(), "no workload");
            }
            assert_eq!(grant.max_ttl(), given.max_ttl);
            let day = Duration::from_secs(24 * 3600);
            assert_eq!(grant.lifetime(day), given.max_ttl.unwrap_or(day).min(day));
            assert!(!grant.lifetime(day).is_zero());
            for kind in KINDS {
                assert_eq!(
                    grant.check_key(kind).is_ok(),
                    given.accepts(kind),
                    "{kind:?}"
                );
            }
        }
    }
});

fn check_places(text: &str, problems: &[ca_auth::Problem]) {
    assert!(!problems.is_empty());
    assert!(problems.is_sorted_by_key(|problem| (problem.line, problem.column)));
    let lines: Vec<_> = text.split('\n').collect();
    for problem in problems {
        assert!(problem.line >= 1 && problem.column >= 1);
        let line = lines.get(problem.line - 1).expect("a line of the text");
        assert!(problem.column <= line.chars().count() + 1, "{problem}");
    }
}

static CALLERS: LazyLock<Vec<Caller>> = LazyLock::new(|| {
    let token = |issuer: &str| Source::Token {
        issuer: Some(issuer.into()),
    };
    let certificate = Source::ClientCertificate {
        serial: "01".into(),
    };
    [
        (token("https://issuer.example"), &WANTED[..1]),
        (token("kubernetes"), &WANTED[1..2]),
        (Source::Token { issuer: None }, &WANTED[..1]),
        (certificate, &WANTED[..2]),
        (Source::ForwardedCertificate { proxy: None }, &WANTED[1..3]),
    ]
    .map(|(source, names)| {
        let names = Identities::new(names.to_vec()).expect("names");
        Caller::new("fuzz", source, names, NOW)
    })
    .into()
});

static WANTED: LazyLock<Vec<SpiffeId>> = LazyLock::new(|| {
    [
        "spiffe://cluster.local/ns/shop/sa/cart",
        "spiffe://cluster.local/ns/gateways/sa/edge",
        "spiffe://cluster.local/ns/kube-system/sa/job-1",
        "spiffe://cluster.local/ns/shop/job",
        "spiffe://other/ns/shop/sa/cart",
        "spiffe://cluster.local",
    ]
    .map(|id| id.parse().expect("an ID"))
    .into()
});

const KINDS: [PublicKeyKind; 5] = [
    PublicKeyKind::EcdsaP256,
    PublicKeyKind::EcdsaP384,
    PublicKeyKind::Ed25519,
    PublicKeyKind::Rsa { bits: 2048 },
    PublicKeyKind::Rsa { bits: 4096 },
];
