use std::path::Path;

use super::*;
use crate::crypto::AWS_LC_RS;
use crate::public_key::VerifyError;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("testdata/key")
            .join(name),
    )
    .unwrap()
}

#[test]
fn every_kind_is_made_by_one_backend_and_understood_by_the_other() {
    use KeyKind::*;
    for (kind, shown) in [
        (EcdsaP256, "ECDSA P-256"),
        (EcdsaP384, "ECDSA P-384"),
        (Ed25519, "Ed25519"),
        (Rsa2048, "RSA-2048"),
        (Rsa3072, "RSA-3072"),
    ] {
        let made = PrivateKey::generate_with(kind, &AWS_LC_RS).unwrap();
        assert_eq!(made.public_key().kind().to_string(), shown);
        let loaded = PrivateKey::from_pem_with(made.to_pkcs8_pem().as_bytes(), &RING).unwrap();
        assert_eq!(loaded.public_key(), made.public_key());
        let algorithm = made.public_key().kind().signature_algorithm();
        for (signer, verifier) in [(&made, &RING), (&loaded, &AWS_LC_RS)] {
            let signature = signer.sign(b"message").unwrap();
            let verify = |message: &[u8]| {
                made.public_key()
                    .verify(verifier, &algorithm, message, &signature)
            };
            verify(b"message").unwrap();
            assert_eq!(verify(b"massage"), Err(VerifyError::Signature));
        }
    }
}

#[test]
fn keys_of_openssl_are_loaded_in_every_format() {
    for (name, kind) in [
        ("p256.pem", "ECDSA P-256"),
        ("p256-sec1.pem", "ECDSA P-256"),
        ("p256-with-parameters.pem", "ECDSA P-256"),
        ("p384.pem", "ECDSA P-384"),
        ("p384-sec1.pem", "ECDSA P-384"),
        ("ed25519.pem", "Ed25519"),
        ("rsa2048.pem", "RSA-2048"),
        ("rsa2048-pkcs1.pem", "RSA-2048"),
    ] {
        for backend in [&RING, &AWS_LC_RS] {
            let key = PrivateKey::from_pem_with(&file(name), backend)
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(key.public_key().kind().to_string(), kind, "{name}");
            // What is written is loaded again, by either backend.
            let again = PrivateKey::from_pem(key.to_pkcs8_pem().as_bytes()).unwrap();
            assert_eq!(again.public_key(), key.public_key(), "{name}");
        }
    }
    assert_eq!(public("p256.pem"), public("p256-sec1.pem"));
    assert_eq!(public("rsa2048.pem"), public("rsa2048-pkcs1.pem"));
}

fn public(name: &str) -> PublicKey {
    PrivateKey::from_pem(&file(name))
        .unwrap()
        .public_key()
        .clone()
}

#[test]
fn a_key_without_its_public_half_needs_the_backend_that_can_compute_it() {
    let text = file("p256-sec1-no-public.pem");
    let error = PrivateKey::from_pem(&text).unwrap_err().to_string();
    assert!(error.contains("lacks the public key"), "{error}");
    let key = PrivateKey::from_pem_with(&text, &AWS_LC_RS).unwrap();
    assert_eq!(*key.public_key(), public("p256.pem"));
}

#[test]
fn weak_odd_and_foreign_keys_are_refused_by_name() {
    for (text, named) in [
        (file("rsa1024.pem"), "private key rejected"),
        (file("rsa2048-exponent-3.pem"), "private key rejected"),
        (file("p521.pem"), "unsupported public key"),
        (file("p224.pem"), "unsupported public key"),
        (file("secp256k1.pem"), "unsupported public key"),
        (file("ed448.pem"), "unsupported public key"),
        (
            file("p256-encrypted.pem"),
            "PEM block \"ENCRYPTED PRIVATE KEY\"",
        ),
        (b"junk".to_vec(), "no PEM block"),
        (
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec(),
            "not a private key",
        ),
    ] {
        for backend in [&RING, &AWS_LC_RS] {
            let error = PrivateKey::from_pem_with(&text, backend)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(named) || error.contains("RSA key"),
                "{error:?} does not say {named:?}"
            );
        }
    }
}

#[test]
fn ring_says_that_it_cannot_make_rsa_keys() {
    let error = PrivateKey::generate(KeyKind::Rsa2048).unwrap_err();
    assert_eq!(
        error,
        KeyError::CannotGenerate {
            kind: KeyKind::Rsa2048,
            backend: "ring"
        }
    );
}

#[test]
fn nothing_secret_is_printed() {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(ECDSA P-256, redacted)");
}

#[test]
fn every_cut_and_every_flipped_byte_of_a_key_is_judged_without_a_panic() {
    for name in [
        "p256.pem",
        "ed25519.pem",
        "p256-sec1.pem",
        "rsa2048-pkcs1.pem",
    ] {
        let block = pem::parse(file(name)).unwrap();
        let der = block.contents();
        for at in 0..der.len().min(160) {
            let mut flipped = der.to_vec();
            flipped[at] ^= 0x55;
            for bytes in [&der[..at], &flipped] {
                let text = pem::encode(&pem::Pem::new(block.tag(), bytes));
                // Whatever loads must be able to sign: a key is never half understood.
                if let Ok(key) = PrivateKey::from_pem(text.as_bytes()) {
                    key.sign(b"message").unwrap();
                }
            }
        }
    }
}
