//! The application behind the second Envoy: answers each request and remembers who asked.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};

/// What each answer contains.
pub(super) const ANSWER: &str = "the basket is checked out\n";

/// Who called, as the Envoy in front of it saw them in the handshake.
#[derive(Clone, Default)]
pub(super) struct Callers {
    /// SHA-256 of each client certificate.
    pub(super) certificates: BTreeSet<String>,
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

/// `Hash=<SHA-256 of the certificate>;URI=<name>`, of one hop.
fn remember(callers: &mut Callers, header: Option<&str>) {
    let part = |label| header?.split(';').find_map(|part| part.strip_prefix(label));
    match (part("Hash="), part("URI=")) {
        (Some(hash), Some(uri)) => {
            callers.certificates.insert(hash.to_owned());
            callers.names.insert(uri.to_owned());
        }
        _ => callers.unnamed += 1,
    }
}
