#![no_main]

use ca_core::crypto::{AWS_LC_RS, RING};
use ca_core::{Csr, PrivateKey, PublicKeyKind, SigningKey as _, create_csr_pem};
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::fixed::cart;

// What a key signs, the other library believes; and a key that signs survives being stored.
fuzz_target!(|text: &[u8]| {
    for (backend, other) in [(&RING, &AWS_LC_RS), (&AWS_LC_RS, &RING)] {
        let Ok(key) = PrivateKey::from_pem_with(text, backend) else {
            continue;
        };
        // RSA keys have numbers that only show to be wrong when they are used, or to the other library.
        let may_be_wrong = matches!(key.public_key().kind(), PublicKeyKind::Rsa { .. });
        let Ok(request) = create_csr_pem(&key, &[cart()]) else {
            assert!(may_be_wrong, "a key that loads signs");
            continue;
        };
        let request = Csr::from_pem_with(request.as_bytes(), other).expect("a good signature");
        assert_eq!(request.public_key(), key.public_key());
        for backend in [backend, other] {
            match PrivateKey::from_pem_with(key.to_pkcs8_pem().as_bytes(), backend) {
                Ok(again) => assert_eq!(again.public_key(), key.public_key()),
                Err(_) => assert!(may_be_wrong && backend.name() == other.name()),
            }
        }
    }
});
