#![no_main]

use std::time::Duration;

use ca_auth::Authorizer;
use ca_core::{Csr, TtlPolicy};
use ca_proto::istio::v1::auth::IstioCertificateRequest;
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::certified::check_request;
use mesh_ca_fuzz::fixed::cart;
use mesh_ca_fuzz::token;
use prost::Message as _;
use prost_types::value::Kind;

// A message says the same after it was written again; and nothing in it leads to a name or a lifetime beyond the rules.
fuzz_target!(|wire: &[u8]| {
    let Ok(message) = IstioCertificateRequest::decode(wire) else {
        return;
    };
    let written = message.encode_to_vec();
    let again = IstioCertificateRequest::decode(&written[..]).expect("what we write reads");
    assert_eq!(again.encode_to_vec(), written);

    let metadata = message.metadata.unwrap_or_default();
    let caller = token::judge(&format!("Bearer {}", *token::GOOD)).expect("a caller");
    for value in metadata.fields.values() {
        let Some(Kind::StringValue(wanted)) = &value.kind else {
            continue;
        };
        if let Ok(grant) = Authorizer::own_names().authorize(caller.clone(), Some(wanted)) {
            assert_eq!(grant.identities(), caller.identities.as_slice());
        }
    }
    let wanted = u64::try_from(message.validity_duration)
        .ok()
        .map(Duration::from_secs);
    if let Ok(lifetime) = TtlPolicy::default().resolve(wanted) {
        assert!((1..=90 * 24 * 3600).contains(&lifetime.as_secs()));
    }
    if let Ok(csr) = Csr::from_pem(message.csr.as_bytes()) {
        check_request(&csr, &cart());
    }
});
