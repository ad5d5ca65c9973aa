use std::pin::pin;
use std::task::{Context, Poll, Waker};

use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::aws_lc;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::authenticator::Authenticators;
use crate::client_certificate::ClientCertificateAuthenticator;
use crate::evidence::Transport;
use crate::local_issuer::LocalIssuer;
use crate::subject_rule::ClaimRule;
use ca_core::{KeyKind, PrivateKey, SigningKey as _};

const NOW: i64 = 1_800_000_000;

impl JwtAuthenticator {
    /// With keys that are at hand nobody waits.
    fn judge_now(&self, token: &str, now: OffsetDateTime) -> Result<Caller, TokenError> {
        let verdict = pin!(self.verified(token, now));
        match verdict.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(verdict) => verdict.map(|verified| verified.caller),
            Poll::Pending => panic!("a token is judged without waiting"),
        }
    }
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

/// An issuer whose tokens say whatever a test wants.
struct Issuer {
    signing: EncodingKey,
    algorithm: Algorithm,
    keys: IssuerKeys,
    public_pem: String,
}

impl Issuer {
    fn new(kind: KeyKind) -> Self {
        let key = PrivateKey::generate(kind).unwrap();
        let pkcs8 = key.pkcs8_der();
        let (signing, algorithm) = match kind {
            KeyKind::EcdsaP256 => (EncodingKey::from_ec_der(pkcs8), Algorithm::ES256),
            KeyKind::EcdsaP384 => (EncodingKey::from_ec_der(pkcs8), Algorithm::ES384),
            _ => (EncodingKey::from_ed_der(pkcs8), Algorithm::EdDSA),
        };
        Self::with(signing, algorithm, key.public_key().spki_der())
    }

    fn rsa() -> Self {
        use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
        use aws_lc_rs::signature::KeyPair as _;

        let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).unwrap();
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).unwrap();
        // The signer wants PKCS#1, which lies behind the fixed header of PKCS#8.
        let signing = EncodingKey::from_rsa_der(&private.as_ref()[26..]);
        Self::with(signing, Algorithm::RS256, public.as_ref())
    }

    fn with(signing: EncodingKey, algorithm: Algorithm, spki: &[u8]) -> Self {
        let public_pem = pem::encode(&pem::Pem::new("PUBLIC KEY", spki));
        let keys = IssuerKeys::parse(public_pem.as_bytes()).unwrap();
        Self {
            signing,
            algorithm,
            keys,
            public_pem,
        }
    }

    fn signed(&self, claims: &Value) -> String {
        self.signed_as(&json!({ "alg": format!("{:?}", self.algorithm) }), claims)
    }

    /// Signs with the own algorithm, whatever the header says.
    fn signed_as(&self, header: &Value, claims: &Value) -> String {
        sign(
            &self.signing,
            self.algorithm,
            &header.to_string(),
            &claims.to_string(),
        )
    }

    fn authenticator(&self) -> JwtAuthenticator {
        JwtAuthenticator::new(
            "cluster.local".parse().unwrap(),
            self.keys.clone(),
            Audiences::default(),
        )
    }

    fn judge(&self, token: &str) -> Result<Caller, TokenError> {
        self.authenticator().judge_now(token, at(NOW))
    }
}

fn sign(key: &EncodingKey, algorithm: Algorithm, header: &str, claims: &str) -> String {
    let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
    let message = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(claims.as_bytes())
    );
    let signer = (aws_lc::DEFAULT_PROVIDER.signer_factory)(&algorithm, key).unwrap();
    let signature = signer.try_sign(message.as_bytes()).unwrap();
    format!("{message}.{}", encode(&signature))
}

/// The claims of a good token, with `changes` laid over them; `null` takes one away.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "https://kubernetes.default.svc",
        "sub": "system:serviceaccount:shop:cart",
        "aud": ["istio-ca"],
        "iat": NOW - 10,
        "nbf": NOW - 10,
        "exp": NOW + 3600,
    });
    let Value::Object(changes) = changes else {
        panic!("not an object: {changes}");
    };
    let all = claims.as_object_mut().unwrap();
    all.extend(changes);
    all.retain(|_, value| !value.is_null());
    claims
}

#[test]
fn a_good_token_names_its_service_account() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let caller = issuer.judge(&issuer.signed(&claims(json!({})))).unwrap();
    assert_eq!(caller.authenticator, "jwt");
    assert_eq!(
        caller.identities.as_slice(),
        ["spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()]
    );
    let source = Source::Token {
        issuer: Some("https://kubernetes.default.svc".into()),
    };
    assert_eq!(caller.source, source);
    assert_eq!(caller.expires, at(NOW + 3600));
    let account = ServiceAccount::new("shop", "cart").unwrap();
    assert_eq!(caller.service_account, Some(account));
    assert_eq!(caller.pod, None);
}

#[test]
fn a_token_of_a_pod_names_the_pod() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let kubernetes = json!({
        "namespace": "shop",
        "node": { "name": "n1", "uid": "50f3" },
        "pod": { "name": "cart-7d4b", "uid": "0a1b" },
        "serviceaccount": { "name": "cart", "uid": "77aa" },
        "warnafter": NOW + 3600,
    });
    let token = issuer.signed(&claims(json!({ "kubernetes.io": kubernetes })));
    let pod = issuer.judge(&token).unwrap().pod.unwrap();
    assert_eq!((pod.name.as_str(), pod.uid.as_str()), ("cart-7d4b", "0a1b"));

    let without_pod = json!({ "namespace": "shop", "serviceaccount": { "name": "cart" } });
    let token = issuer.signed(&claims(json!({ "kubernetes.io": without_pod })));
    assert_eq!(issuer.judge(&token).unwrap().pod, None);
}

#[test]
fn the_claims_of_kubernetes_must_agree_with_the_subject() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    for other in [
        json!({ "namespace": "bank" }),
        json!({ "namespace": "" }),
        json!({ "serviceaccount": { "name": "admin", "uid": "1" } }),
        json!({ "namespace": "bank", "serviceaccount": { "name": "cart", "uid": "1" } }),
    ] {
        let token = issuer.signed(&claims(json!({ "kubernetes.io": other })));
        assert_eq!(
            issuer.judge(&token),
            Err(TokenError::Contradiction),
            "{other}"
        );
    }
}

#[test]
fn every_kind_of_key_verifies_what_it_signs_and_no_more() {
    let mut issuers: Vec<Issuer> = [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Ed25519]
        .map(Issuer::new)
        .into();
    let rsa = Issuer::rsa();
    issuers.extend(RSA_NAMES.map(|algorithm| Issuer {
        signing: rsa.signing.clone(),
        algorithm,
        keys: rsa.keys.clone(),
        public_pem: String::new(),
    }));
    for (own, issuer) in issuers.iter().enumerate() {
        let token = issuer.signed(&claims(json!({})));
        let all_rsa = |other: usize| own >= 3 && other >= 3;
        for (other, judge) in issuers.iter().enumerate() {
            let verdict = judge.judge(&token);
            assert_eq!(
                verdict.is_ok(),
                other == own || all_rsa(other),
                "{:?} judged by {:?}: {verdict:?}",
                issuer.algorithm,
                judge.algorithm
            );
        }
        // A signature that is not the one its header speaks of.
        for named in ["RS256", "PS256", "ES256", "ES384", "EdDSA"] {
            if format!("{:?}", issuer.algorithm) != named {
                let token = issuer.signed_as(&json!({ "alg": named }), &claims(json!({})));
                assert!(
                    issuer.judge(&token).is_err(),
                    "{named} by {:?}",
                    issuer.algorithm
                );
            }
        }
    }
}

const RSA_NAMES: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

#[test]
fn the_algorithm_is_chosen_by_the_key_and_never_by_the_token() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let good = claims(json!({}));
    let refused = |found: &str| {
        Err(TokenError::Algorithm {
            found: found.into(),
        })
    };

    // No signature at all, in the spellings that have fooled others.
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let token = issuer.signed_as(&json!({ "alg": none }), &good);
        let unsigned = &token[..=token.rfind('.').unwrap()];
        assert_eq!(
            issuer.judge(unsigned),
            refused(none),
            "{none:?} without signature"
        );
        assert_eq!(
            issuer.judge(&token),
            refused(none),
            "{none:?} with signature"
        );
    }

    // The public key taken as a shared secret: as PEM, as DER, as bare text.
    let der = pem::parse(&issuer.public_pem).unwrap().into_contents();
    for secret in [
        issuer.public_pem.as_bytes(),
        issuer.public_pem.trim().as_bytes(),
        &der,
    ] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let name = format!("{algorithm:?}");
            let key = EncodingKey::from_secret(secret);
            let header = json!({ "alg": name }).to_string();
            let token = sign(&key, algorithm, &header, &good.to_string());
            assert_eq!(issuer.judge(&token), refused(&name));
        }
    }

    for unknown in ["ES512", "ES256K", "es256", "RS1", "EdDSA2", "A128KW"] {
        let token = issuer.signed_as(&json!({ "alg": unknown }), &good);
        assert_eq!(issuer.judge(&token), refused(unknown));
    }
}

#[test]
fn a_key_that_is_meant_for_one_algorithm_verifies_no_other() {
    let (narrowed, open) = (Issuer::rsa(), Issuer::rsa());
    let jwk = |issuer: &Issuer, algorithm: Value| {
        let spki = pem::parse(&issuer.public_pem).unwrap().into_contents();
        // Behind fixed headers: 256 bytes of modulus, the tag and length of the exponent, 65537.
        let modulus = &spki[33..33 + 256];
        assert_eq!(spki[33 + 256..], [2, 3, 1, 0, 1]);
        let n = URL_SAFE_NO_PAD.encode(modulus);
        json!({ "kty": "RSA", "n": n, "e": "AQAB", "alg": algorithm })
    };
    let set = json!({ "keys": [jwk(&narrowed, json!("PS384")), jwk(&open, Value::Null)] });
    let keys = IssuerKeys::parse(set.to_string().as_bytes()).unwrap();
    assert_eq!(keys.len(), 2);
    let jwt = JwtAuthenticator {
        keys: Arc::new(keys),
        ..open.authenticator()
    };
    let judge = |issuer: &Issuer| jwt.judge_now(&issuer.signed(&claims(json!({}))), at(NOW));
    assert!(judge(&open).is_ok());
    assert_eq!(judge(&narrowed), Err(TokenError::Signature));
    let narrowed = Issuer {
        algorithm: Algorithm::PS384,
        ..narrowed
    };
    assert!(judge(&narrowed).is_ok());
}

#[test]
fn a_key_in_the_token_is_not_looked_at() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let thief = Issuer::new(KeyKind::EcdsaP256);
    let point = pem::parse(&thief.public_pem).unwrap().into_contents();
    let (x, y) = point[point.len() - 64..].split_at(32);
    let header = json!({
        "alg": "ES256",
        "jwk": {
            "kty": "EC", "crv": "P-256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        },
        "jku": "https://thief.example/keys",
        "x5u": "https://thief.example/cert",
    });
    let token = thief.signed_as(&header, &claims(json!({})));
    assert_eq!(issuer.judge(&token), Err(TokenError::Signature));
}

#[test]
fn a_key_id_narrows_the_keys_and_an_unknown_one_is_refused() {
    let issuer = LocalIssuer::generate().unwrap();
    let account = ServiceAccount::new("shop", "cart").unwrap();
    let hour = std::time::Duration::from_secs(3600);
    let token = issuer.issue(&account, "istio-ca", hour, at(NOW)).unwrap();
    let jwt = |keys| JwtAuthenticator::new("td".parse().unwrap(), keys, Audiences::default());
    assert!(jwt(issuer.keys()).judge_now(&token, at(NOW)).is_ok());

    let other = LocalIssuer::generate().unwrap();
    assert_eq!(
        jwt(other.keys()).judge_now(&token, at(NOW)),
        Err(TokenError::UnknownKey {
            id: issuer.keys().fingerprints().next().unwrap()
        })
    );

    // Without an ID in the header every key is tried; a key without an ID is tried for every token.
    let key = EncodingKey::from_ec_der(
        &pem::parse(issuer.to_pkcs8_pem().as_bytes())
            .unwrap()
            .into_contents(),
    );
    let good = claims(json!({})).to_string();
    let anonymous = sign(&key, Algorithm::ES256, r#"{"alg":"ES256"}"#, &good);
    assert!(jwt(issuer.keys()).judge_now(&anonymous, at(NOW)).is_ok());
    let unnamed = Issuer::new(KeyKind::EcdsaP256);
    let token = unnamed.signed_as(
        &json!({ "alg": "ES256", "kid": "whatever" }),
        &claims(json!({})),
    );
    assert!(unnamed.judge(&token).is_ok());
}

#[test]
fn a_changed_token_does_not_verify() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let token = issuer.signed(&claims(json!({})));
    let parts: Vec<&str> = token.split('.').collect();
    let other = URL_SAFE_NO_PAD
        .encode(claims(json!({ "sub": "system:serviceaccount:kube-system:admin" })).to_string());
    assert_eq!(
        issuer.judge(&format!("{}.{other}.{}", parts[0], parts[2])),
        Err(TokenError::Signature)
    );
    let stranger = Issuer::new(KeyKind::EcdsaP256);
    assert_eq!(stranger.judge(&token), Err(TokenError::Signature));

    // ECDSA of all zeros, which careless libraries have accepted for every message.
    let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
    assert_eq!(
        issuer.judge(&format!("{}.{}.{zeros}", parts[0], parts[1])),
        Err(TokenError::Signature)
    );
    let empty = format!("{}.{}.", parts[0], parts[1]);
    assert_eq!(issuer.judge(&empty), Err(TokenError::Signature));
}

#[test]
fn only_three_parts_in_strict_base64url_are_a_token() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let token = issuer.signed(&claims(json!({})));
    let parts: Vec<&str> = token.split('.').collect();
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "garbage".into(),
        "a.b.c".into(),
        "!!!.???.###".into(),
        "\u{1f511}.\u{1f511}.\u{1f511}".into(),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}\n"),
        format!(" {token}"),
        format!("{token}=="),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}.{}", parts[0], parts[1], parts[2], parts[2]),
        // The five parts of an encrypted token.
        format!(
            "{}.{}.{}.{}.{}",
            parts[0], parts[1], parts[1], parts[1], parts[2]
        ),
    ] {
        let verdict = issuer.judge(&bad);
        assert!(
            matches!(verdict, Err(TokenError::Form | TokenError::Json { .. })),
            "{bad:?}: {verdict:?}"
        );
    }
}

#[test]
fn a_token_that_is_too_long_is_refused_unread() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let padded = |bytes: usize| issuer.signed(&claims(json!({ "padding": "x".repeat(bytes) })));
    assert!(issuer.judge(&padded(11_000)).is_ok());
    assert_eq!(issuer.judge(&padded(13_000)), Err(TokenError::TooLong));
    let huge = "a".repeat(10_000_000);
    assert_eq!(issuer.judge(&huge), Err(TokenError::TooLong));
}

#[test]
fn critical_extensions_are_refused() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    for crit in [
        json!(["exp"]),
        json!(["b64"]),
        json!([]),
        json!("exp"),
        json!(7),
    ] {
        let header = json!({ "alg": "ES256", "crit": crit, "b64": false });
        let token = issuer.signed_as(&header, &claims(json!({})));
        assert_eq!(
            issuer.judge(&token),
            Err(TokenError::CriticalExtension),
            "{crit}"
        );
    }
}

#[test]
fn members_given_twice_are_refused() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let good = claims(json!({})).to_string();
    let twice = |json: &str, member: &str| json.replacen('{', &format!("{{{member},"), 1);
    for (header, claims) in [
        (r#"{"alg":"none","alg":"ES256"}"#.into(), good.clone()),
        (
            r#"{"alg":"ES256"}"#.to_string(),
            twice(&good, r#""sub":"system:serviceaccount:shop:admin""#),
        ),
        (
            r#"{"alg":"ES256"}"#.into(),
            twice(&good, r#""aud":"other""#),
        ),
        (
            r#"{"alg":"ES256"}"#.into(),
            twice(&good, r#""exp":9999999999"#),
        ),
    ] {
        let token = sign(&issuer.signing, Algorithm::ES256, &header, &claims);
        assert!(
            matches!(issuer.judge(&token), Err(TokenError::Json { .. })),
            "{header} {claims}"
        );
    }
}

#[test]
fn times_are_kept_to_the_second() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let over = |at_second: i64| Err(TokenError::Expired { at: at(at_second) });
    let early = |second: i64| Err(TokenError::NotYetValid { from: at(second) });
    let cases: &[(Value, Result<(), TokenError>)] = &[
        (json!({ "exp": NOW + 1 }), Ok(())),
        (json!({ "exp": NOW }), over(NOW)),
        (json!({ "exp": NOW - 1 }), over(NOW - 1)),
        (json!({ "exp": 0 }), over(0)),
        (json!({ "exp": -1 }), over(-1)),
        // Fractions are allowed, and a token ends no later than its fraction.
        (json!({ "exp": NOW as f64 + 1.5 }), Ok(())),
        (json!({ "exp": NOW as f64 + 0.5 }), over(NOW)),
        (json!({ "exp": 1e300 }), Ok(())),
        (json!({ "exp": u64::MAX }), Ok(())),
        (json!({ "nbf": null }), Ok(())),
        (json!({ "nbf": NOW }), Ok(())),
        (json!({ "nbf": NOW + 60 }), Ok(())),
        (json!({ "nbf": NOW + 61 }), early(NOW + 61)),
        (json!({ "nbf": -1e300 }), Ok(())),
        // When it was issued is not a limit.
        (json!({ "iat": null }), Ok(())),
        (json!({ "iat": NOW + 100_000 }), Ok(())),
    ];
    for (changes, expected) in cases {
        let verdict = issuer.judge(&issuer.signed(&claims(changes.clone())));
        assert_eq!(verdict.map(drop), *expected, "{changes}");
    }
    let endless = issuer.judge(&issuer.signed(&claims(json!({ "exp": null }))));
    assert_eq!(
        endless.unwrap_err().to_string(),
        "the claims of the token: there is no \"exp\""
    );
    for wrong in [
        json!({ "exp": "1900000000" }),
        json!({ "exp": [] }),
        json!({ "exp": true }),
        json!({ "nbf": "soon" }),
    ] {
        let verdict = issuer.judge(&issuer.signed(&claims(wrong.clone())));
        let expected = |verdict| matches!(verdict, Err(TokenError::Json { part: "claims", .. }));
        assert!(expected(verdict), "{wrong}");
    }
}

#[test]
fn one_audience_of_ours_is_enough_and_needed() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let names = vec!["istio-ca".into(), "mesh".into()];
    let jwt = JwtAuthenticator {
        audiences: Audiences::new(names).unwrap(),
        ..issuer.authenticator()
    };
    for (aud, good) in [
        (json!("istio-ca"), true),
        (json!("mesh"), true),
        (json!(["istio-ca"]), true),
        (json!(["kubernetes", "mesh"]), true),
        (json!(null), false),
        (json!(""), false),
        (json!([]), false),
        (json!([""]), false),
        (json!("istio-ca "), false),
        (json!("Istio-CA"), false),
        (json!("istio-ca,mesh"), false),
        (json!(["kubernetes"]), false),
    ] {
        let verdict = jwt.judge_now(&issuer.signed(&claims(json!({ "aud": aud }))), at(NOW));
        match verdict {
            Ok(_) => assert!(good, "{aud} was accepted"),
            Err(TokenError::Audience { .. }) => assert!(!good, "{aud} was refused"),
            Err(other) => panic!("{aud}: {other}"),
        }
    }
    for wrong in [
        json!(7),
        json!({}),
        json!([1]),
        json!([["istio-ca"]]),
        json!(["istio-ca", null]),
    ] {
        let verdict = jwt.judge_now(&issuer.signed(&claims(json!({ "aud": wrong }))), at(NOW));
        assert!(matches!(verdict, Err(TokenError::Json { .. })), "{wrong}");
    }
    assert_eq!(Audiences::new(Vec::new()), None);
    assert_eq!(Audiences::new(vec![String::new()]), None);
}

#[test]
fn the_issuer_must_be_exact_when_one_is_set() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let jwt = issuer.authenticator().with_issuer("https://issuer.example");
    for (iss, good) in [
        (json!("https://issuer.example"), true),
        (json!("https://issuer.example/"), false),
        (json!("HTTPS://issuer.example"), false),
        (json!(""), false),
        (json!(null), false),
    ] {
        let token = issuer.signed(&claims(json!({ "iss": iss })));
        let verdict = jwt.judge_now(&token, at(NOW));
        assert_eq!(verdict.is_ok(), good, "{iss}: {verdict:?}");
        assert!(issuer.judge(&token).is_ok(), "{iss} without a set issuer");
    }
}

#[test]
fn the_subject_must_be_a_service_account() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    for sub in [
        "",
        "alice",
        "system:serviceaccount",
        "system:serviceaccount:shop",
        "system:serviceaccount:shop:cart:more",
        "system:serviceaccount::cart",
        "system:serviceaccount:shop:",
        "system:serviceaccount:shop/sa/admin:cart",
        "system:serviceaccount:..:cart",
        "system:serviceaccount:sh\u{f6}p:cart",
        "system:node:n1:cart",
        "spiffe://cluster.local/ns/shop/sa/cart",
    ] {
        let verdict = issuer.judge(&issuer.signed(&claims(json!({ "sub": sub }))));
        assert!(
            matches!(verdict, Err(TokenError::Subject(_))),
            "{sub:?}: {verdict:?}"
        );
    }
    let long = format!("system:serviceaccount:shop:{}", "a".repeat(3000));
    assert!(
        issuer
            .judge(&issuer.signed(&claims(json!({ "sub": long }))))
            .is_err()
    );
    let nobody = issuer.judge(&issuer.signed(&claims(json!({ "sub": null }))));
    assert_eq!(
        nobody.unwrap_err().to_string(),
        "the claims of the token: there is no \"sub\""
    );
    for wrong in [json!(7), json!(["system:serviceaccount:shop:cart"])] {
        let verdict = issuer.judge(&issuer.signed(&claims(json!({ "sub": wrong }))));
        assert!(matches!(verdict, Err(TokenError::Json { .. })), "{wrong}");
    }
}

#[test]
fn people_can_see_whose_tokens_are_judged_and_with_which_keys() {
    let issuer = LocalIssuer::generate().unwrap();
    let keys = issuer.keys();
    let fingerprints: Vec<_> = keys.fingerprints().collect();
    let jwt = JwtAuthenticator::new("td".parse().unwrap(), keys, Audiences::default())
        .with_issuer(LocalIssuer::NAME);
    let all = Authenticators::new(vec![
        Box::new(ClientCertificateAuthenticator::new("td".parse().unwrap())),
        Box::new(jwt),
    ]);
    let [certificate, token] = &all.status()[..] else {
        panic!("not two");
    };
    assert_eq!(
        (certificate.name, &certificate.keys),
        ("client-certificate", &None)
    );
    assert_eq!(
        (token.name, token.issuer.as_deref()),
        ("jwt", Some(LocalIssuer::NAME))
    );
    assert_eq!(token.keys.as_ref().unwrap().fingerprints, fingerprints);
}

#[tokio::test]
async fn evidence_without_a_token_is_told_from_a_bad_token() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let jwt = issuer.authenticator();
    let evidence = || Evidence::new(Transport::Tls { client_chain: None });

    let none = jwt.authenticate(&evidence(), at(NOW)).await;
    assert!(matches!(none, Err(AuthnError::NotPresented)));
    let basic = evidence().with_authorization("Basic dXNlcjpwYXNz");
    let basic = jwt.authenticate(&basic, at(NOW)).await;
    assert!(matches!(basic, Err(AuthnError::NotPresented)));

    let token = issuer.signed(&claims(json!({})));
    let good = evidence().with_authorization(&format!("Bearer {token}"));
    assert!(jwt.authenticate(&good, at(NOW)).await.is_ok());
    let late = jwt.authenticate(&good, at(NOW + 3600)).await;
    assert!(matches!(late, Err(AuthnError::Rejected(_))));
}

#[tokio::test]
async fn of_several_issuers_the_one_that_refuses_is_named_and_the_others_have_nothing_to_judge() {
    let issuers =
        ["https://a", "https://b", "https://c"].map(|name| (name, Issuer::new(KeyKind::EcdsaP256)));
    let all = issuers.iter().map(|(name, issuer)| {
        let jwt = issuer.authenticator().with_issuer(*name);
        Box::new(jwt) as Box<dyn Authenticator>
    });
    let all = Authenticators::new(all.collect());
    let judge = async |token: &str| {
        let evidence = Evidence::new(Transport::Tls { client_chain: None });
        let evidence = evidence.with_authorization(&format!("Bearer {token}"));
        all.authenticate(&evidence, at(NOW)).await
    };
    let signed = |by: usize, changes: Value| issuers[by].1.signed(&claims(changes));

    let caller = judge(&signed(1, json!({ "iss": "https://b" }))).await;
    let source = Source::Token {
        issuer: Some("https://b".into()),
    };
    assert_eq!(caller.unwrap().source, source);

    for (token, line) in [
        (
            signed(0, json!({ "iss": "https://b" })),
            "jwt does not apply: the token is of issuer \"https://b\", not of \"https://a\", \"https://c\"; \
             jwt rejected: issuer \"https://b\": the signature does not verify",
        ),
        (
            signed(0, json!({ "iss": "https://x" })),
            "jwt does not apply: the token is of issuer \"https://x\", which is none of those configured \
             (\"https://a\", \"https://b\", \"https://c\")",
        ),
        ("x".into(), "jwt rejected: not a signed JSON Web Token"),
    ] {
        let refusal = judge(&token).await.unwrap_err();
        assert_eq!(
            refusal.to_string(),
            format!("nobody vouches for the caller: {line}")
        );
    }
    let refusal = judge(&signed(0, json!({ "iss": "https://b" }))).await;
    let refusal = refusal.unwrap_err();
    let rejections = refusal.reasons().iter();
    let rejections = rejections.filter(|(_, reason)| matches!(reason, AuthnError::Rejected(_)));
    assert_eq!(rejections.count(), 1);
}

#[test]
fn no_reason_holds_the_token_and_all_are_short() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let long = "x".repeat(9000);
    let header = json!({ "alg": "ES256" });
    for token in [
        issuer.signed_as(&json!({ "alg": long }), &claims(json!({}))),
        issuer.signed_as(&json!({ "alg": 7, "kid": long }), &claims(json!({}))),
        issuer.signed_as(&header, &claims(json!({ "sub": long }))),
        issuer.signed_as(&header, &claims(json!({ "aud": long }))),
        issuer.signed_as(&header, &claims(json!({ "aud": [long, long] }))),
        issuer.signed_as(&header, &claims(json!({ "exp": long }))),
        issuer.signed_as(
            &header,
            &claims(json!({ "sub": format!("system:serviceaccount:a:{long}") })),
        ),
        format!("{long}.{long}"),
    ] {
        let reason = issuer.judge(&token).unwrap_err().to_string();
        assert!(reason.len() < 250, "{reason}");
        for part in token.split('.') {
            assert!(!reason.contains(part), "{reason}");
        }
    }
}

/// The examples of RFC 7515 (A.2, A.3) and RFC 8037 (A.4): made by somebody else.
#[test]
fn signatures_of_other_makers_verify() {
    let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
                  cGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let cases = [
        (
            Algorithm::ES256,
            json!({
                "kty": "EC", "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            }),
            format!("eyJhbGciOiJFUzI1NiJ9.{claims}"),
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            Algorithm::EdDSA,
            json!({
                "kty": "OKP", "crv": "Ed25519",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            }),
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".into(),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
        (
            Algorithm::RS256,
            json!({
                "kty": "RSA", "e": "AQAB",
                "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrc\
                      S2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGz\
                      jb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xs\
                      mtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8\
                      q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
            }),
            format!("eyJhbGciOiJSUzI1NiJ9.{claims}"),
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5\
             jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb\
             1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QO\
             YEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
    ];
    for (algorithm, jwk, message, signature) in cases {
        let keys = IssuerKeys::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
        let key = keys.candidates(None).next().unwrap();
        let signature = decode(signature).unwrap();
        assert!(
            key.verifies(algorithm, message.as_bytes(), &signature),
            "{algorithm:?}"
        );
        let changed = message.replace("eyJ", "eyK");
        assert!(
            !key.verifies(algorithm, changed.as_bytes(), &signature),
            "{algorithm:?}"
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_judged_without_a_panic(token in any::<String>(), parts in "[A-Za-z0-9_.-]{0,200}") {
        let issuer = fixed();
        prop_assert!(issuer.judge(&token).is_err());
        prop_assert!(issuer.judge(&parts).is_err());
    }

    #[test]
    fn any_bytes_in_the_three_parts_are_judged_without_a_panic(
        header in any::<Vec<u8>>(),
        claims in any::<Vec<u8>>(),
        signature in any::<Vec<u8>>(),
    ) {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let token = format!("{}.{}.{}", encode(&header), encode(&claims), encode(&signature));
        prop_assert!(fixed().judge(&token).is_err());
    }

    #[test]
    fn any_signed_claims_are_judged_without_a_panic(
        exp in any::<f64>(),
        nbf in any::<Option<f64>>(),
        sub in "(system:)?(serviceaccount:)?\\PC{0,20}(:\\PC{0,20})?",
        aud in prop_oneof![any::<String>().prop_map(Value::from), any::<Vec<String>>().prop_map(Value::from)],
        now in -60_000_000_000_i64..250_000_000_000,
    ) {
        let issuer = fixed();
        let changes = json!({ "exp": exp, "nbf": nbf, "sub": sub, "aud": aud });
        let verdict = issuer.authenticator().judge_now(&issuer.signed(&claims(changes)), at(now));
        if let Ok(caller) = verdict {
            prop_assert!(caller.expires > at(now));
        }
    }
}

/// One issuer for all runs of a property: making a key is not what they are about.
fn fixed() -> &'static Issuer {
    static ISSUER: std::sync::OnceLock<Issuer> = std::sync::OnceLock::new();
    ISSUER.get_or_init(|| Issuer::new(KeyKind::EcdsaP256))
}

/// A place of keys that counts what it is asked.
#[derive(Clone, Debug)]
struct Place {
    keys: Result<IssuerKeys, KeysUnavailable>,
    newer: Result<Option<IssuerKeys>, KeysUnavailable>,
    asked: Arc<std::sync::atomic::AtomicUsize>,
}

impl KeySource for Place {
    fn current(&self) -> BoxFuture<'_, Result<IssuerKeys, KeysUnavailable>> {
        Box::pin(std::future::ready(self.keys.clone()))
    }

    fn newer<'a>(
        &'a self,
        _than: &'a IssuerKeys,
    ) -> BoxFuture<'a, Result<Option<IssuerKeys>, KeysUnavailable>> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Box::pin(std::future::ready(self.newer.clone()))
    }

    fn status(&self) -> crate::key_source::KeyStatus {
        IssuerKeys::status(self.keys.as_ref().unwrap())
    }
}

#[tokio::test]
async fn an_unknown_key_is_looked_for_once_and_who_cannot_be_asked_is_told_from_a_bad_token() {
    let (old, new) = (
        LocalIssuer::generate().unwrap(),
        LocalIssuer::generate().unwrap(),
    );
    let token = |issuer: &LocalIssuer| {
        let account = ServiceAccount::new("shop", "cart").unwrap();
        let hour = std::time::Duration::from_secs(3600);
        issuer.issue(&account, "istio-ca", hour, at(NOW)).unwrap()
    };
    let down = KeysUnavailable::new("no answer within 5s");
    let place = |newer: Result<Option<IssuerKeys>, KeysUnavailable>| Place {
        keys: Ok(old.keys()),
        newer,
        asked: Arc::default(),
    };
    let judge = async |place: &Place, token: &str| {
        let mesh = "cluster.local".parse().unwrap();
        let jwt = JwtAuthenticator::new(mesh, place.clone(), Audiences::default())
            .with_issuer(LocalIssuer::NAME);
        let evidence = Evidence::new(Transport::Tls { client_chain: None })
            .with_authorization(&format!("Bearer {token}"));
        let verdict = jwt.authenticate(&evidence, at(NOW)).await;
        let asked = place.asked.load(std::sync::atomic::Ordering::SeqCst);
        (verdict, asked)
    };
    type Expected = fn(&Result<Caller, AuthnError>) -> bool;
    let good: Expected = |verdict| verdict.is_ok();
    let bad: Expected = |verdict| matches!(verdict, Err(AuthnError::Rejected(_)));
    let later: Expected = |verdict| matches!(verdict, Err(AuthnError::CouldNotAsk(_)));
    for (place, issuer, expected, asked) in [
        (place(Ok(Some(new.keys()))), &old, good, 0),
        (place(Ok(Some(new.keys()))), &new, good, 1),
        (place(Ok(Some(old.keys()))), &new, bad, 1),
        (place(Ok(None)), &new, bad, 1),
        (place(Err(down.clone())), &new, later, 1),
        // Known keys are enough for tokens that they verify.
        (place(Err(down.clone())), &old, good, 0),
        (
            Place {
                keys: Err(down.clone()),
                ..place(Ok(None))
            },
            &old,
            later,
            0,
        ),
    ] {
        let (verdict, found) = judge(&place, &token(issuer)).await;
        assert!(expected(&verdict), "{place:?}: {verdict:?}");
        assert_eq!(found, asked, "{place:?}");
    }

    // A forged signature by a key that is known is no reason to ask, nor is a token of another issuer.
    let place = place(Ok(None));
    let real = token(&old);
    let forged = format!("{}.{}", real.rsplit_once('.').unwrap().0, "A".repeat(86));
    let (verdict, asked) = judge(&place, &forged).await;
    assert!(bad(&verdict) && asked == 0, "{verdict:?}");
    let other = Issuer::new(KeyKind::EcdsaP256);
    let (verdict, asked) = judge(&place, &other.signed(&claims(json!({})))).await;
    assert!(
        matches!(verdict, Err(AuthnError::AnotherIssuer(_))) && asked == 0,
        "{verdict:?}"
    );
    // Without an ID in the header, a new key cannot be told from a forgery: once is asked.
    let nameless = other.signed(&claims(json!({ "iss": LocalIssuer::NAME })));
    let place = Place {
        keys: Ok(Issuer::new(KeyKind::EcdsaP256).keys),
        newer: Ok(Some(other.keys.clone())),
        ..place
    };
    let (verdict, asked) = judge(&place, &nameless).await;
    assert!(good(&verdict) && asked == 1, "{verdict:?}");
}

#[test]
fn an_issuer_that_is_not_kubernetes_names_its_bearers_by_a_rule() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let template = "spiffe://{trust_domain}/ns/{claim:team}/sa/{claim:app}";
    let rule =
        ClaimRule::new(template.parse().unwrap()).requiring("org".parse().unwrap(), "example");
    let jwt = issuer
        .authenticator()
        .with_subject_rule(SubjectRule::Claims(rule));
    let judge = |changes: Value| {
        let token = issuer.signed(&claims(changes));
        jwt.judge_now(&token, at(NOW))
    };
    let good = json!({ "sub": "1234", "team": "shop", "app": "cart", "org": "example" });
    let caller = judge(good).unwrap();
    let expected = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    assert_eq!(caller.identities.as_slice(), [expected]);
    // Nobody vouches that this account exists in Kubernetes: such a caller is never a node proxy.
    assert_eq!((caller.service_account, caller.pod), (None, None));

    for bad in [
        json!({ "team": "shop", "app": "cart" }),
        json!({ "team": "shop", "app": "cart", "org": "other" }),
        json!({ "team": "shop", "org": "example" }),
        json!({ "team": "shop", "app": "a/b", "org": "example" }),
    ] {
        let verdict = judge(bad.clone());
        assert!(
            matches!(verdict, Err(TokenError::Claims(_))),
            "{bad}: {verdict:?}"
        );
    }
    // A service account is not what this issuer speaks of.
    assert!(judge(json!({})).is_err());
}

#[test]
fn a_clock_that_differs_is_allowed_for_in_both_directions_and_within_bounds() {
    let issuer = Issuer::new(KeyKind::EcdsaP256);
    let with = |seconds| {
        let skew = std::time::Duration::from_secs(seconds);
        issuer.authenticator().with_clock_skew(skew)
    };
    let judge = |jwt: &JwtAuthenticator, changes: Value| {
        jwt.judge_now(&issuer.signed(&claims(changes)), at(NOW))
    };
    let caller = judge(&with(120), json!({ "exp": NOW - 119 })).unwrap();
    assert_eq!(caller.expires, at(NOW + 1));
    assert!(judge(&with(120), json!({ "exp": NOW - 120 })).is_err());
    assert!(judge(&with(120), json!({ "nbf": NOW + 120 })).is_ok());
    assert!(judge(&with(120), json!({ "nbf": NOW + 121 })).is_err());
    // What was allowed without it still is.
    assert!(judge(&with(1), json!({ "nbf": NOW + 60 })).is_ok());
    // A day is a mistake, not a skew.
    assert!(judge(&with(86_400), json!({ "exp": NOW - 299 })).is_ok());
    assert!(judge(&with(86_400), json!({ "exp": NOW - 300 })).is_err());
}
