//! The header `x-forwarded-client-cert`: read a second time, written as Envoy does, and judged.

use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use ca_auth::{
    Authenticator as _, Evidence, ForwardedCertificate, ForwardedCertificateAuthenticator,
    Transport, TrustedProxies,
};

use crate::fixed::NOW;

/// Who is in 10.0.0.0/8 is a proxy.
static AUTHENTICATOR: LazyLock<ForwardedCertificateAuthenticator> = LazyLock::new(|| {
    let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().expect("a range")]);
    ForwardedCertificateAuthenticator::new("cluster.local".parse().expect("a mesh"), proxies)
});

/// The names of a caller at `peer` who sends these headers; `None` for one who is not believed.
pub fn judge(peer: &str, headers: &[&str]) -> Option<Vec<String>> {
    let mut evidence = Evidence::new(Transport::Tls { client_chain: None })
        .with_peer_address(peer.parse().expect("an address"));
    for header in headers {
        evidence = evidence.with_forwarded_certificate(*header);
    }
    let verdict = pin!(AUTHENTICATOR.authenticate(&evidence, NOW));
    let Poll::Ready(verdict) = Future::poll(verdict, &mut Context::from_waker(Waker::noop()))
    else {
        panic!("a header is judged without waiting");
    };
    let names = verdict.ok()?.identities;
    Some(names.as_slice().iter().map(ToString::to_string).collect())
}

/// A header in parts: a plain reader that goes from quote to quote and knows no error.
pub struct HeaderText {
    pub elements: Vec<ElementText>,
}

pub struct ElementText {
    /// Keys in lower case.
    pairs: Vec<(String, String)>,
}

impl HeaderText {
    pub fn read(text: &str) -> Self {
        let elements = split_outside_quotes(text, ',').into_iter();
        Self {
            elements: elements.map(ElementText::read).collect(),
        }
    }
}

impl ElementText {
    fn read(text: &str) -> Self {
        let pairs = split_outside_quotes(text, ';').into_iter();
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').expect("an accepted pair has a key");
            let key = key.trim_matches([' ', '\t']).to_ascii_lowercase();
            let value = value.trim_matches([' ', '\t']);
            let quoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            let value =
                quoted.map_or_else(|| value.to_owned(), |inner| inner.replace("\\\"", "\""));
            (key, value)
        });
        Self {
            pairs: pairs.collect(),
        }
    }

    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.pairs.iter().filter(move |(found, _)| found == key);
        pairs.map(|(_, value)| value.as_str())
    }
}

fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if c == separator && !is_quoted => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Compares what was read with the second reading.
pub fn check_elements(text: &str, ours: &[ForwardedCertificate]) {
    let theirs = HeaderText::read(text).elements;
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!(theirs.values("uri").eq(&ours.uris));
        assert!(theirs.values("dns").eq(&ours.dns_names));
        assert!(theirs.values("by").eq(&ours.by));
        assert!(theirs.values("hash").eq(ours.hash.as_deref()));
        assert!(theirs.values("subject").eq(ours.subject.as_deref()));
    }
}

/// The header that says the same, with as few quotes as can be.
pub fn write(elements: &[ForwardedCertificate]) -> String {
    let elements = elements.iter().map(|element| {
        let all = [
            ("By", &element.by),
            ("URI", &element.uris),
            ("DNS", &element.dns_names),
        ];
        let lists = all
            .into_iter()
            .flat_map(|(key, values)| values.iter().map(move |v| (key, v)));
        let hash = element.hash.iter().map(|value| ("Hash", value));
        let subject = element.subject.iter().map(|value| ("Subject", value));
        let pairs = lists.chain(hash).chain(subject);
        let mut pairs: Vec<_> = pairs.map(|(k, v)| format!("{k}={}", quoted(v))).collect();
        // There may be nothing in it that we keep.
        pairs.push("Chain=".into());
        pairs.join(";")
    });
    elements.collect::<Vec<_>>().join(",")
}

fn quoted(value: &str) -> String {
    if value.contains([',', ';', '=', '"', ' ']) {
        format!("\"{}\"", value.replace('"', "\\\""))
    } else {
        value.to_owned()
    }
}

/// What Envoy writes for a certificate with this subject and this URI. It has the subject in the form of RFC 2253, with
/// everything escaped that has a meaning there, and all that is not printable as hexadecimal digits.
pub fn by_envoy(subject: &str, uri: &str) -> String {
    let mut escaped = String::new();
    for c in subject.chars() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => escaped.extend(['\\', c]),
            ' '..='~' => escaped.push(c),
            _ => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    escaped.push_str(&format!("\\{byte:02X}"));
                }
            }
        }
    }
    format!("By=spiffe://cluster.local/ns/edge/sa/edge;Hash=ab;Subject=\"{escaped}\";URI={uri}")
}
