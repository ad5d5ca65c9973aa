#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::fixed::NOW;
use mesh_ca_fuzz::token;
use serde_json::Value;

// Behind a good signature: a caller is who the claims say, towards us and not too late. Header, new line, claims.
fuzz_target!(|input: &str| {
    let (header, claims) = input
        .split_once('\n')
        .unwrap_or((r#"{"alg":"EdDSA"}"#, input));
    let authorization = format!("Bearer {}", token::sign(header, claims));
    let Some(caller) = token::judge(&authorization) else {
        return;
    };
    let read = |text| serde_json::from_str::<Value>(text).ok();
    let (Some(header), Some(claims)) = (read(header), read(claims)) else {
        // Claims that are none of our business may hold numbers that no other reader can hold.
        return;
    };
    assert_eq!(header["alg"], "EdDSA");
    assert!(header["crit"].is_null());
    assert!(header["kid"].is_null() || header["kid"] == "ed");

    let account = caller.service_account.expect("a service account");
    assert_eq!(claims["sub"], *account.user_name());
    let identity = account
        .identity(&"cluster.local".parse().expect("a mesh"))
        .expect("a name");
    assert_eq!(caller.identities.as_slice(), [identity]);
    let audience = &claims["aud"];
    let in_list = |list: &Vec<Value>| list.iter().any(|name| name == "istio-ca");
    assert!(audience == "istio-ca" || audience.as_array().is_some_and(in_list));
    assert!(claims["exp"].as_f64().expect("a number") > NOW.unix_timestamp() as f64);
    assert!(caller.expires > NOW);
    let kubernetes = &claims["kubernetes.io"];
    for (claimed, ours) in [
        (&kubernetes["namespace"], account.namespace()),
        (&kubernetes["serviceaccount"]["name"], account.name()),
    ] {
        assert!(claimed.is_null() || claimed == ours);
    }
    assert!(
        caller
            .pod
            .is_none_or(|pod| kubernetes["pod"]["name"] == *pod.name)
    );
});
