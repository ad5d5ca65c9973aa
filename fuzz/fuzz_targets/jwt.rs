#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::token;

// No text is a token but the one that was signed.
fuzz_target!(|authorization: &str| {
    let good = authorization.strip_prefix("Bearer ") == Some(&token::GOOD);
    assert_eq!(token::judge(authorization).is_some(), good);
    let bare = token::judge(&format!("Bearer {authorization}"));
    assert_eq!(bare.is_some(), authorization == *token::GOOD);
});
