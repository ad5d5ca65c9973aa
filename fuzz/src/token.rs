//! Tokens of a fixed issuer, and the authenticator that judges them.

use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ca_auth::{
    Audiences, Authenticator as _, Caller, Evidence, IssuerKeys, JwtAuthenticator, Transport,
};
use ca_core::{PrivateKey, SigningKey as _};

use crate::fixed::{self, NOW};

static ISSUER_KEY: LazyLock<PrivateKey> = LazyLock::new(|| fixed::key(3));

/// Keys of every kind. Only the private half of `ed` is known here.
static KEYS: LazyLock<IssuerKeys> = LazyLock::new(|| {
    let spki = ISSUER_KEY.public_key().spki_der();
    let x = URL_SAFE_NO_PAD.encode(&spki[spki.len() - 32..]);
    let set = include_str!("token/issuer.json").replace("ED25519-X", &x);
    let keys = IssuerKeys::parse(set.as_bytes()).expect("a JWK Set");
    assert_eq!(keys.len(), 3);
    keys
});

static AUTHENTICATOR: LazyLock<JwtAuthenticator> = LazyLock::new(|| authenticator(KEYS.clone()));

/// One that trusts `keys`.
pub fn authenticator(keys: IssuerKeys) -> JwtAuthenticator {
    let mesh = "cluster.local".parse().expect("a trust domain");
    JwtAuthenticator::new(mesh, keys, Audiences::default())
}

/// One that trusts the fixed issuer.
pub fn own_authenticator() -> JwtAuthenticator {
    authenticator(KEYS.clone())
}

/// A token with these parts, signed by the fixed issuer whatever they say.
pub fn sign(header: &str, claims: &str) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = ISSUER_KEY.sign(message.as_bytes()).expect("a signature");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The one good token that there is.
pub static GOOD: LazyLock<String> = LazyLock::new(|| {
    sign(
        r#"{"alg":"EdDSA","kid":"ed"}"#,
        r#"{"iss":"i","sub":"system:serviceaccount:shop:cart","aud":["istio-ca"],"exp":1800003600}"#,
    )
});

/// The fingerprint of the key that signs.
pub fn fingerprint() -> String {
    let spki = ISSUER_KEY.public_key().spki_der();
    let text = pem::encode(&pem::Pem::new("PUBLIC KEY", spki));
    let keys = IssuerKeys::parse(text.as_bytes()).expect("a public key");
    keys.fingerprints().next().expect("one key")
}

/// What the fixed authenticator says of an `authorization` header.
pub fn judge(authorization: &str) -> Option<Caller> {
    judge_with(&AUTHENTICATOR, authorization)
}

/// What `authenticator` says of an `authorization` header.
pub fn judge_with(authenticator: &JwtAuthenticator, authorization: &str) -> Option<Caller> {
    let evidence =
        Evidence::new(Transport::Tls { client_chain: None }).with_authorization(authorization);
    let shown = |evidence: &Evidence| {
        let text = format!("{evidence:?}");
        text.replace("Some(BearerToken(..))", "None")
    };
    let blank = Evidence::new(Transport::Tls { client_chain: None });
    assert_eq!(shown(&evidence), shown(&blank), "a token is never shown");
    let verdict = pin!(authenticator.authenticate(&evidence, NOW));
    let Poll::Ready(verdict) = Future::poll(verdict, &mut Context::from_waker(Waker::noop()))
    else {
        panic!("a token is judged without waiting");
    };
    if let (Some(token), Err(error)) = (evidence.bearer_token(), &verdict) {
        // Short texts are everywhere, and no secrets.
        let secret = token.secret();
        assert!(secret.len() < 80 || !error.to_string().contains(secret));
    }
    verdict.ok()
}
