//! JSON over HTTPS, for partners that are set up over their API.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pki_types::pem::PemObject as _;
use pki_types::{CertificateDer, ServerName};
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};
use serde_json::Value;

use crate::http;

/// For each read and write: a partner may have much to do first.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A way to an API, and who we are there.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) address: SocketAddr,
    /// What its certificate is verified with. Read each time, because one that starts again may have another.
    pub(super) roots: PathBuf,
    /// A header that says who asks, if it is not just anybody.
    pub(super) caller: Option<(&'static str, String)>,
}

impl Api {
    /// What it has there.
    pub(super) fn get(&self, path: &str) -> Result<Value> {
        self.must("GET", path, &Value::Null)
    }

    /// What it answers to this, which it must accept.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.must("POST", path, body)
    }

    /// The same, for what Vault calls a list.
    pub(super) fn list(&self, path: &str) -> Result<Value> {
        self.must("LIST", path, &Value::Null)
    }

    fn must(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let (status, answer) = self.ask(method, path, body)?;
        ensure!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        Ok(answer)
    }

    /// Status and answer, whatever they are. No body: `Null`.
    pub(super) fn ask(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
        let address = self.address;
        let mut socket = TcpStream::connect_timeout(&address, TIMEOUT)
            .with_context(|| format!("cannot connect to {address}"))?;
        socket
            .set_read_timeout(Some(TIMEOUT))
            .and_then(|()| socket.set_write_timeout(Some(TIMEOUT)))
            .context("cannot set a timeout")?;
        let name = ServerName::IpAddress(address.ip().into());
        let mut connection =
            ClientConnection::new(self.tls()?, name).context("cannot start TLS")?;
        let mut stream = Stream::new(&mut connection, &mut socket);
        let response = http::exchange(&mut stream, address, &self.request(method, path, body))
            .with_context(|| format!("{method} {path}"))?;
        // Some answers have nothing in them, and some that say no are no JSON.
        let answer = serde_json::from_str(&response.body).unwrap_or(response.body.into());
        Ok((response.status, answer))
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> String {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let caller = match &self.caller {
            Some((header, value)) => format!("{header}: {value}\r\n"),
            None => String::new(),
        };
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{caller}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len(),
        )
    }

    fn tls(&self) -> Result<Arc<ClientConfig>> {
        let path = &self.roots;
        let pem = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&pem) {
            roots
                .add(root.with_context(|| path.display().to_string())?)
                .with_context(|| path.display().to_string())?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("cannot choose TLS versions")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// A text in an answer, which must be there.
pub(super) fn text<'a>(answer: &'a Value, pointer: &str) -> Result<&'a str> {
    answer
        .pointer(pointer)
        .and_then(Value::as_str)
        .with_context(|| format!("no {pointer} in {answer}"))
}
