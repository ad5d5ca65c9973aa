use std::collections::BTreeMap;
use std::sync::Mutex;

use ca_core::testing::{TestCa, now};
use ca_core::{SigningKey as _, SubjectName};
use pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::issuer_keys::IssuerKeys;
use crate::key_place::KeyPlace;
use crate::local_issuer::LocalIssuer;

/// A real HTTPS server on a loopback address, with pages that a test writes.
pub(crate) struct Site {
    pub(crate) root_pem: String,
    port: u16,
    pages: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let ca = TestCa::new("cluster.local");
        let names: Vec<SubjectName> = ["localhost", "127.0.0.1"]
            .map(|n| n.parse().unwrap())
            .into();
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
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Self {
            root_pem: ca.roots().to_pem().into(),
            port: listener.local_addr().unwrap().port(),
            pages: Arc::default(),
        };
        let pages = Arc::clone(&site.pages);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, pages) = (acceptor.clone(), Arc::clone(&pages));
                tokio::spawn(async move {
                    // A client that does not trust us is one of the tests.
                    let Ok(mut stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else {
                            return;
                        };
                        head.push(byte);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    let page = pages.lock().unwrap().get(&path).cloned();
                    let page = page.unwrap_or_else(|| answer("404 Not Found", ""));
                    let _ = stream.write_all(page.as_bytes()).await;
                    if page.is_empty() {
                        // Says nothing until the client gives up.
                        let _ = stream.read_u8().await;
                    }
                    let _ = stream.shutdown().await;
                });
            }
        });
        site
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// Everything that the server sends for a path, with status line and headers.
    pub(crate) fn set(&self, path: &str, page: String) {
        self.pages.lock().unwrap().insert(path.into(), page);
    }

    pub(crate) fn client(&self) -> HttpsClient {
        HttpsClient::new(self.root_pem.as_bytes()).unwrap()
    }

    async fn get(&self, path: &str) -> Result<Bytes, String> {
        let url = self.url(path).parse().unwrap();
        let got = self.client().get(&url).await;
        got.map_err(|error| error.to_string().replace(&self.url(""), "site"))
    }
}

pub(crate) fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_document_comes_whole_and_with_status_200_or_not_at_all() {
    let site = Site::start().await;
    site.set("/good", answer("200 OK", "hello"));
    site.set("/query?a=b", answer("200 OK", "asked"));
    site.set("/moved", answer("302 Found\r\nlocation: /good", ""));
    site.set("/error", answer("500 Internal Server Error", "hello"));
    site.set(
        "/large",
        answer("200 OK", &"x".repeat(HttpsClient::MAX_BODY_BYTES + 1)),
    );
    let endless = "5\r\nhello\r\n".repeat(HttpsClient::MAX_BODY_BYTES / 5 + 1);
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    site.set("/endless", format!("{chunked}{endless}"));
    site.set(
        "/cut",
        answer("200 OK", "hello").replace("length: 5", "length: 50"),
    );
    site.set("/junk", "hello\r\n\r\n".into());

    assert_eq!(site.get("/good").await.unwrap(), "hello");
    assert_eq!(site.get("/query?a=b").await.unwrap(), "asked");
    for (path, reason) in [
        ("/none", "site/none: status 404 Not Found"),
        (
            "/moved",
            "site/moved: status 302 Found, and redirects are not followed",
        ),
        ("/error", "site/error: status 500 Internal Server Error"),
        ("/large", "site/large: larger than 524288 bytes"),
        ("/endless", "site/endless: larger than 524288 bytes"),
    ] {
        assert_eq!(site.get(path).await.unwrap_err(), reason);
    }
    for path in ["/cut", "/junk"] {
        let error = site.get(path).await.unwrap_err();
        assert!(error.starts_with(&format!("site{path}: HTTP: ")), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_the_deadline() {
    let site = Site::start().await;
    site.set("/silent", String::new());
    let client = site.client().with_deadline(Duration::from_millis(50));
    let error = client.get(&site.url("/silent").parse().unwrap()).await;
    let error = error.unwrap_err().to_string();
    assert!(error.ends_with("not complete within 50ms"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_not_asked() {
    let site = Site::start().await;
    site.set("/good", answer("200 OK", "hello"));
    let other = TestCa::new("cluster.local").roots();
    let client = HttpsClient::new(other.to_pem().as_bytes()).unwrap();
    let error = client.get(&site.url("/good").parse().unwrap()).await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("TLS: invalid peer certificate")
    );

    assert!(matches!(
        HttpsClient::new(b"no certificate"),
        Err(HttpsClientError::NoRoot { passed_over: 0 })
    ));
}

#[tokio::test]
async fn nobody_there_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("http://127.0.0.1:{free}/").parse().unwrap();
    let error = Site::start().await.client().get(&url).await.unwrap_err();
    assert!(error.to_string().contains("cannot connect: "), "{error}");
}

#[test]
fn only_encrypted_places_and_this_machine_are_asked() {
    for good in [
        "https://issuer.example",
        "https://issuer.example:8443/keys?x=1",
        "https://10.0.0.1/keys",
        "https://[2001:db8::1]/keys",
        "http://127.0.0.1:8080/keys",
        "http://[::1]:8080/keys",
        "http://localhost/keys",
    ] {
        assert_eq!(good.parse::<DocumentUrl>().map(|_| ()), Ok(()), "{good}");
    }
    for bad in [
        "",
        "issuer.example",
        "/keys",
        "https:///keys",
        "http://issuer.example/keys",
        "http://10.0.0.1/keys",
        "http://localhost.example/keys",
        "http://127.0.0.1.example/keys",
        "ftp://issuer.example/keys",
        "file:///etc/keys",
        "https://user:secret@issuer.example/keys",
        "https://issuer.example/keys#fragment",
        "https://issuer.example/k eys",
    ] {
        assert!(bad.parse::<DocumentUrl>().is_err(), "{bad}");
    }
}

#[tokio::test]
async fn keys_come_from_their_address_or_from_where_their_issuer_says() {
    let site = Site::start().await;
    let issuer = LocalIssuer::generate().unwrap();
    let jwk_set = jwk_set(&issuer);
    let fingerprints = |keys: &IssuerKeys| keys.fingerprints().collect::<Vec<_>>();
    let expected = fingerprints(&issuer.keys());

    site.set("/keys", answer("200 OK", &jwk_set));
    let place = KeyPlace::jwk_set(site.url("/keys").parse().unwrap());
    assert_eq!(
        fingerprints(&place.fetch(&site.client()).await.unwrap()),
        expected
    );

    let name = site.url("/tenant");
    let place = KeyPlace::discovered(&name).unwrap();
    assert!(place.fetch(&site.client()).await.is_err());
    let document = format!(
        r#"{{"issuer":"{name}","jwks_uri":"{}"}}"#,
        site.url("/keys")
    );
    site.set(
        "/tenant/.well-known/openid-configuration",
        answer("200 OK", &document),
    );
    assert_eq!(
        fingerprints(&place.fetch(&site.client()).await.unwrap()),
        expected
    );

    site.set("/keys", answer("200 OK", "{}"));
    let error = place.fetch(&site.client()).await.unwrap_err().to_string();
    assert!(
        error.ends_with("/keys: not a JWK Set: wrong at line 1, column 2"),
        "{error}"
    );
}

/// The public key of an issuer as it would publish it.
fn jwk_set(issuer: &LocalIssuer) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let key = ca_core::PrivateKey::from_pem(issuer.to_pkcs8_pem().as_bytes()).unwrap();
    let spki = key.public_key().spki_der();
    let (x, y) = spki[spki.len() - 64..].split_at(32);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}]}}"#)
}

#[test]
fn a_port_that_is_no_number_is_refused_and_not_taken_for_none() {
    for bad in [
        "https://issuer.example:99999/k",
        "https://issuer.example:65536/k",
        "https://issuer.example:443a/k",
        "https://issuer.example:84$43/k",
        "http://localhost:x/k",
        "https://sY:]:6553/k",
        "https://s:000[]:0000/k",
        "https://[::1]x/k",
        "https://[issuer.example]/k",
    ] {
        assert!(bad.parse::<DocumentUrl>().is_err(), "{bad}");
    }
    for good in [
        "https://issuer.example/k",
        "https://issuer.example:8443/k",
        "http://[::1]:80/k",
    ] {
        assert!(good.parse::<DocumentUrl>().is_ok(), "{good}");
    }
}

#[test]
fn what_stands_before_a_host_is_never_shown() {
    for (text, shown) in [
        ("https://user:pass@h/k@l", "https://…@h/k@l"),
        ("https://pass@h", "https://…@h"),
        ("https://user:p@ss@h:1/", "https://…@h:1/"),
        ("https://user:pa/ss@h/k", "https://…@h/k"),
        (
            r#"{"a":"https://b","c":"https://user:pass@d/","e":"f@g"}"#,
            r#"{"a":"https://b","c":"https://…@d/","e":"f@g"}"#,
        ),
        (r#""https:\/\/user:pass@h\/k""#, r#""https:\/\/…@h\/k""#),
        ("https://a@b\nhttp://c:d@e", "https://…@b\nhttp://…@e"),
        // Nothing to hide.
        ("https://h:1/a@b", "https://h:1/a@b"),
        ("https://[::1]:1/a@b", "https://[::1]:1/a@b"),
        ("someone@example.com", "someone@example.com"),
        ("", ""),
    ] {
        assert_eq!(DocumentUrl::without_userinfo(text), shown);
    }
    let refused = "https://user:pass@h/".parse::<DocumentUrl>().unwrap_err();
    let said = refused.to_string();
    assert_eq!(said, "URL \"https://…@h/\": it holds a user name");
}
