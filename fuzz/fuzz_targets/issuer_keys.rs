#![no_main]

use ca_auth::IssuerKeys;
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::token;

// Keys that read are as many as are told, and verify no token of somebody else.
fuzz_target!(|content: &[u8]| {
    let Ok(keys) = IssuerKeys::parse(content) else {
        return;
    };
    let fingerprints: Vec<_> = keys.fingerprints().collect();
    assert!(keys.len() > 0);
    assert_eq!(fingerprints.len(), keys.len());
    assert!(fingerprints.iter().all(|shown| shown.len() == 43));
    let in_json = serde_json::from_slice::<serde_json::Value>(content);
    if let Some(listed) = in_json
        .ok()
        .and_then(|set| set["keys"].as_array().map(Vec::len))
    {
        assert!(keys.len() <= listed);
    }

    let accepted = token::judge_with(
        &token::authenticator(keys),
        &format!("Bearer {}", *token::GOOD),
    );
    assert!(accepted.is_none() || fingerprints.contains(&token::fingerprint()));
});
