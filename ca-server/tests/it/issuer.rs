//! A token issuer on a real HTTPS server in this process: it signs, publishes keys, rotates them, and goes down.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ca_core::testing::{TestCa, now};
use ca_core::{KeyKind, PrivateKey, SigningKey as _, SubjectName};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::running::DEADLINE;

pub(crate) struct TokenIssuer {
    pub(crate) name: String,
    pages: Arc<Mutex<BTreeMap<String, String>>>,
    folder: TempDir,
}

impl TokenIssuer {
    /// Up, with a discovery document and no keys.
    pub(crate) fn start() -> Self {
        let ca = TestCa::new("issuer.example");
        let names: Vec<SubjectName> = vec!["localhost".parse().unwrap()];
        let (key, chain) = ca.identity(&names, Duration::from_secs(3600), now());
        let certificates = chain
            .iter()
            .map(|certificate| CertificateDer::from(certificate.der().to_vec()))
            .collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let tls = Arc::new(tls);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), ca.root_pem()).unwrap();
        let issuer = Self {
            name,
            pages: Arc::default(),
            folder,
        };
        let pages = Arc::clone(&issuer.pages);
        // Ends with the test's process: nobody waits for it.
        std::thread::spawn(move || {
            while let Ok((tcp, _)) = listener.accept() {
                // Not over TLS, or gone: the next one may be better.
                let _ = answer(tcp, &tls, &pages);
            }
        });
        let document =
            json!({ "issuer": issuer.name, "jwks_uri": format!("{}/keys", issuer.name) });
        issuer.set("/.well-known/openid-configuration", &document);
        issuer
    }

    fn set(&self, path: &str, page: &Value) {
        let mut pages = self.pages.lock().unwrap();
        pages.insert(path.into(), page.to_string());
    }

    /// These keys and no others verify its tokens from now on.
    pub(crate) fn publish(&self, keys: &[&TokenKey]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        self.set("/keys", &json!({ "keys": keys }));
    }

    /// Answers with errors until keys are published again.
    pub(crate) fn go_down(&self) {
        self.pages.lock().unwrap().remove("/keys");
    }

    /// What its server is verified with.
    pub(crate) fn ca_file(&self) -> String {
        self.path("ca.pem").to_str().unwrap().into()
    }

    /// A file of this test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn answer(
    mut tcp: TcpStream,
    tls: &Arc<rustls::ServerConfig>,
    pages: &Mutex<BTreeMap<String, String>>,
) -> std::io::Result<()> {
    tcp.set_read_timeout(Some(DEADLINE))?;
    let mut session =
        rustls::ServerConnection::new(Arc::clone(tls)).map_err(std::io::Error::other)?;
    let mut stream = rustls::Stream::new(&mut session, &mut tcp);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let page = pages.lock().unwrap().get(path).cloned();
    let (status, body) = match page {
        Some(page) => ("200 OK", page),
        None => ("503 Service Unavailable", String::new()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )?;
    stream.flush()
}

/// A key that signs tokens.
pub(crate) struct TokenKey {
    id: &'static str,
    key: PrivateKey,
}

impl TokenKey {
    pub(crate) fn new(id: &'static str) -> Self {
        Self {
            id,
            key: PrivateKey::generate(KeyKind::Ed25519).unwrap(),
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        let spki = self.key.public_key().spki_der();
        let x = URL_SAFE_NO_PAD.encode(&spki[spki.len() - 32..]);
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.id, "x": x })
    }

    /// A token of one hour for `shop/cart`, with `changes` laid over its claims.
    pub(crate) fn token(&self, issuer: &str, changes: &Value) -> String {
        let mut claims = json!({
            "iss": issuer,
            "sub": "system:serviceaccount:shop:cart",
            "aud": ["istio-ca"],
            "exp": now().unix_timestamp() + 3600,
        });
        let changes = changes.as_object().unwrap().clone();
        claims.as_object_mut().unwrap().extend(changes);
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let header = json!({ "alg": "EdDSA", "kid": self.id });
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
