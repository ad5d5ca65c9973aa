//! The application behind the second Envoy: answers each request and remembers who asked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};

use crate::identity::Leaf;

/// What each answer contains.
pub(super) const ANSWER: &str = "the basket is checked out\n";

/// Who called, as the Envoy in front of it saw them in the handshake.
#[derive(Clone, Default)]
pub(super) struct Callers {
    /// Serial numbers of the client certificates, in the order in which they first appeared.
    pub(super) serials: Vec<String>,
    /// That of the latest request.
    pub(super) latest: String,
    /// The serial number of each certificate, by its SHA-256.
    by_hash: BTreeMap<String, String>,
    /// The URI in each client certificate.
    pub(super) names: BTreeSet<String>,
    /// Requests that came without any of this.
    pub(super) unnamed: u64,
}

pub(super) struct Backend {
    pub(super) address: SocketAddr,
    callers: Arc<Mutex<Callers>>,
}

impl Backend {
    /// Its threads end with the process.
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot start a backend")?;
        let address = listener.local_addr().context("cannot start a backend")?;
        let callers = Arc::<Mutex<Callers>>::default();
        let shared = Arc::clone(&callers);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let callers = Arc::clone(&shared);
                // An error is a connection that Envoy closed.
                std::thread::spawn(move || serve(&connection, &callers).ok());
            }
        });
        Ok(Self { address, callers })
    }

    pub(super) fn callers(&self) -> Callers {
        // A panic of one connection leaves no half-made set behind.
        self.callers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn serve(connection: &TcpStream, callers: &Mutex<Callers>) -> std::io::Result<()> {
    let mut writer = connection;
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    let mut certificate = None;
    let mut probe = false;
    for line in BufReader::new(connection).lines() {
        let line = line?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("x-forwarded-client-cert")
        {
            certificate = Some(value.trim().to_owned());
        }
        probe |= line.starts_with("GET /probe ");
        if line.is_empty() {
            let certificate = certificate.take();
            // A probe comes from this program, not through the other Envoy.
            if !std::mem::take(&mut probe) {
                let mut callers = callers.lock().unwrap_or_else(PoisonError::into_inner);
                remember(&mut callers, certificate.as_deref());
            }
            writer.write_all(response.as_bytes())?;
        }
    }
    Ok(())
}

/// `Hash=<SHA-256 of the certificate>;Cert="<PEM>";URI=<name>`, of one hop.
fn remember(callers: &mut Callers, header: Option<&str>) {
    let part = |label| header?.split(';').find_map(|part| part.strip_prefix(label));
    let (Some(hash), Some(pem), Some(uri)) = (part("Hash="), part("Cert="), part("URI=")) else {
        callers.unnamed += 1;
        return;
    };
    callers.names.insert(uri.to_owned());
    let serial = match callers.by_hash.get(hash) {
        Some(serial) => serial.clone(),
        None => {
            let Ok(leaf) = Leaf::from_pem(&unescaped(pem.trim_matches('"'))) else {
                callers.unnamed += 1;
                return;
            };
            let serial = leaf.serial;
            callers.by_hash.insert(hash.to_owned(), serial.clone());
            callers.serials.push(serial.clone());
            serial
        }
    };
    callers.latest = serial;
}

/// Without the `%2B` of URLs.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend(before.as_bytes());
        let code = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescaped("a%2Bb%0A"), b"a+b\n");
        assert_eq!(unescaped("100%"), b"100%");
    }

    #[test]
    fn a_caller_without_a_certificate_is_counted_apart() {
        let mut callers = Callers::default();
        remember(&mut callers, None);
        remember(&mut callers, Some("Hash=ab;URI=spiffe://a/b"));
        assert_eq!((callers.unnamed, callers.names.len()), (2, 0));
    }
}
