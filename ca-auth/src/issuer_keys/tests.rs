use ca_core::{KeyKind, PrivateKey, SigningKey as _};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn parse(keys: &Value) -> Result<IssuerKeys, IssuerKeysError> {
    IssuerKeys::parse(json!({ "keys": keys }).to_string().as_bytes())
}

fn algorithms(keys: &Value) -> Vec<Vec<Algorithm>> {
    let keys = parse(keys).unwrap();
    keys.keys.iter().map(|key| key.algorithms.clone()).collect()
}

fn p256(changes: Value) -> Value {
    let mut key = json!({
        "kty": "EC", "crv": "P-256", "kid": "one",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    change(&mut key, changes);
    key
}

fn rsa(modulus: &[u8], changes: Value) -> Value {
    let mut key = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB" });
    change(&mut key, changes);
    key
}

fn change(key: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else {
        panic!("not an object: {changes}");
    };
    key.as_object_mut().unwrap().extend(changes);
}

#[test]
fn the_algorithms_follow_from_the_key() {
    let ed25519 = json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    assert_eq!(
        algorithms(&json!([
            p256(json!({})),
            ed25519,
            rsa(&[0xc1; 256], json!({}))
        ])),
        [
            vec![Algorithm::ES256],
            vec![Algorithm::EdDSA],
            RSA_ALGORITHMS.to_vec()
        ]
    );
}

#[test]
fn an_algorithm_named_beside_the_key_narrows_it() {
    let key = rsa(&[0xc1; 256], json!({ "alg": "PS384" }));
    assert_eq!(algorithms(&json!([key])), [vec![Algorithm::PS384]]);
}

#[test]
fn keys_for_other_purposes_are_passed_over() {
    let good = p256(json!({}));
    let others = [
        json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }),
        json!({ "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA" }),
        json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }),
        json!({ "kty": "EC", "crv": "Ed25519", "x": "AA", "y": "AA" }),
        json!({ "kty": "OKP", "crv": "X25519", "x": "AA" }),
        json!({ "kty": "OKP", "crv": "P-256", "x": "AA" }),
        json!({ "kty": "AKP", "pub": "AA" }),
        json!({ "kty": "" }),
        p256(json!({ "use": "enc" })),
        p256(json!({ "alg": "ES384" })),
        p256(json!({ "alg": "HS256" })),
        p256(json!({ "alg": "ECDH-ES" })),
        // Coordinates of the wrong length: together they would have the right one.
        p256(json!({ "x": URL_SAFE_NO_PAD.encode([1; 31]), "y": URL_SAFE_NO_PAD.encode([1; 33]) })),
        p256(json!({ "x": "" })),
        p256(json!({ "x": "not base64url" })),
        p256(json!({ "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU=" })),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode([1; 31]) }),
        rsa(&[0xc1; 128], json!({})),
        rsa(&[0xc1; 2048], json!({})),
        rsa(&[], json!({})),
        rsa(&[0xc1; 256], json!({ "e": "AQ" })),
        rsa(&[0xc1; 256], json!({ "e": "Ag" })),
        rsa(&[0xc1; 256], json!({ "alg": "RSA-OAEP" })),
    ];
    for other in others {
        let alone = parse(&json!([other]));
        assert!(
            matches!(alone, Err(IssuerKeysError::NoneUsable { .. })),
            "{other}: {alone:?}"
        );
        let keys = parse(&json!([other, good])).unwrap();
        assert_eq!(keys.len(), 1, "{other}");
    }
}

#[test]
fn pem_holds_one_or_more_public_keys_and_nothing_else() {
    let pem = |kind| {
        let key = PrivateKey::generate(kind).unwrap();
        let spki = key.public_key().spki_der();
        (pem::encode(&pem::Pem::new("PUBLIC KEY", spki)), key)
    };
    let (first, key) = pem(KeyKind::EcdsaP256);
    let (second, _) = pem(KeyKind::Ed25519);
    assert_eq!(IssuerKeys::parse(first.as_bytes()).unwrap().len(), 1);
    let both = format!("# rotated in November\n{first}\n{second}");
    let both = IssuerKeys::parse(both.as_bytes()).unwrap();
    assert_eq!(both.len(), 2);
    assert_eq!(
        both.fingerprints().next().unwrap(),
        fingerprint(key.public_key())
    );

    let private = key.to_pkcs8_pem();
    assert_eq!(
        IssuerKeys::parse(private.as_bytes()).unwrap_err(),
        IssuerKeysError::Label {
            label: "PRIVATE KEY".into()
        }
    );
    let mixed = format!(
        "{first}{}",
        pem::encode(&pem::Pem::new("PUBLIC KEY", "no key"))
    );
    assert!(IssuerKeys::parse(mixed.as_bytes()).is_err());
}

#[test]
fn what_is_no_key_file_is_refused_with_the_reason() {
    for (text, reason) in [
        ("", "no issuer keys: the text is empty"),
        (" \n", "no issuer keys: the text is empty"),
        ("hello", "neither a JWK Set nor PEM"),
        ("[]", "neither a JWK Set nor PEM"),
        ("{", "not a JWK Set: wrong at line 1, column 1"),
        ("{}", "not a JWK Set: wrong at line 1, column 2"),
        (
            r#"{"keys":[]}"#,
            "no key in the JWK Set can be used: it is empty",
        ),
        (
            r#"{"keys":[{"kty":"oct","k":"AA"}]}"#,
            "no key in the JWK Set can be used: key 0: its kind is not accepted",
        ),
    ] {
        let error = IssuerKeys::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), reason, "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in any::<Vec<u8>>(), n in any::<Vec<u8>>(), e in any::<Vec<u8>>()) {
        let _ = IssuerKeys::parse(&bytes);
        let key = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e) });
        let _ = parse(&json!([key]));
    }
}
