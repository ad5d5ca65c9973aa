#![no_main]

use ca_auth::{ClaimRule, IdentityTemplate, SubjectRule};
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::token;
use serde_json::Value;

// A template, a claim that is required, its value (one in each line), and claims: whoever is accepted is in our mesh, under
// the name that a second reading of the claims puts into the template.
fuzz_target!(|input: &str| {
    let mut lines = input.splitn(4, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let (template_text, required, value, claims) = (next(), next(), next(), next());
    let Ok(template) = template_text.parse::<IdentityTemplate>() else {
        return;
    };
    assert_eq!(template.to_string(), template_text);
    let mut rule = ClaimRule::new(template);
    let required = required.parse().ok().map(|name| {
        rule = rule.clone().requiring(name, value);
        required
    });

    let rest = claims.strip_prefix('{').unwrap_or(r#""sub":""}"#);
    let sub = if rest.contains(r#""sub""#) {
        ""
    } else {
        r#""sub":"u","#
    };
    let claims = format!(r#"{{"aud":"istio-ca","exp":1800003600,{sub}{rest}"#);
    let token = token::sign(r#"{"alg":"EdDSA"}"#, &claims);
    let authenticator = token::own_authenticator().with_subject_rule(SubjectRule::Claims(rule));
    let Some(caller) = token::judge_with(&authenticator, &format!("Bearer {token}")) else {
        return;
    };
    let [identity] = caller.identities.as_slice() else {
        panic!("one name is told");
    };
    let claims: Value = serde_json::from_str(&claims).expect("what was accepted is JSON");
    if let Some(name) = required {
        assert_eq!(claim(&claims, name), value);
    }
    let expected = filled_in(template_text, &claims);
    assert_eq!(identity.as_str(), expected);
    assert_eq!(identity.trust_domain(), "cluster.local");
});

fn claim<'a>(claims: &'a Value, name: &str) -> &'a str {
    let found = match name.starts_with('/') {
        true => claims.pointer(name),
        false => claims.get(name),
    };
    found.and_then(Value::as_str).expect("the claim is text")
}

fn filled_in(template: &str, claims: &Value) -> String {
    let mut id = "spiffe://cluster.local".to_owned();
    let mut rest = template
        .strip_prefix("spiffe://{trust_domain}")
        .expect("our mesh");
    while let Some((before, after)) = rest.split_once("{claim:") {
        let (name, after) = after.split_once('}').expect("a brace");
        let value = claim(claims, name);
        assert!(
            !value.is_empty() && !value.contains('/'),
            "a claim moves no segment"
        );
        id.push_str(before);
        id.push_str(value);
        rest = after;
    }
    id + rest
}
