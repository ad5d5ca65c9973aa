//! An SDS client that does nothing but ask: so small that what is measured is the agent.
//!
//! One connection, one stream; HTTP/2 frames and messages written out by hand.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::wait;

/// Between two attempts to connect.
const STEP: Duration = Duration::from_micros(50);
const TIMEOUT: Duration = Duration::from_secs(20);
/// What a stock Envoy says of itself in its first message, most of it a list of extensions.
const NODE_BYTES: usize = 60_000;
/// The most that one frame may carry.
const FRAME: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// Of `SETTINGS`.
const ACK: u8 = 1;
/// Of `HEADERS`.
const END_HEADERS: u8 = 4;
/// The first that a client may open.
const STREAM: u32 = 1;

pub(super) struct Stream {
    socket: UnixStream,
}

impl Stream {
    /// Connects as soon as somebody listens.
    pub(super) fn open_soon(path: &Path, limit: Duration) -> Result<Self> {
        let deadline = Instant::now() + limit;
        let socket = loop {
            match UnixStream::connect(path) {
                Ok(socket) => break socket,
                Err(error) => {
                    let early = [ErrorKind::NotFound, ErrorKind::ConnectionRefused];
                    ensure!(
                        early.contains(&error.kind()) && Instant::now() < deadline,
                        "cannot connect to {}: {error}",
                        path.display()
                    );
                }
            }
            wait::pause(STEP)?;
        };
        socket
            .set_read_timeout(Some(TIMEOUT))
            .context("cannot set a timeout")?;
        Ok(Self { socket })
    }

    /// Asks for a secret.
    pub(super) fn subscribe(&mut self, name: &str) -> Result<()> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut bytes, SETTINGS, 0, 0, &[]);
        frame(&mut bytes, HEADERS, END_HEADERS, STREAM, &headers());
        let message = first_message(name);
        let mut data = vec![0];
        data.extend(
            u32::try_from(message.len())
                .unwrap_or_default()
                .to_be_bytes(),
        );
        data.extend(message);
        for part in data.chunks(FRAME) {
            frame(&mut bytes, DATA, 0, STREAM, part);
        }
        self.socket.write_all(&bytes).context("cannot ask")
    }

    /// Waits for the answer.
    pub(super) fn answer(&mut self) -> Result<()> {
        loop {
            let mut head = [0; 9];
            self.socket.read_exact(&mut head).context("no answer")?;
            let [a, b, c, kind, flags, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.socket.read_exact(&mut payload).context("no answer")?;
            match kind {
                DATA if !payload.is_empty() => return Ok(()),
                SETTINGS if flags & ACK == 0 => {
                    let mut bytes = Vec::new();
                    frame(&mut bytes, SETTINGS, ACK, 0, &[]);
                    self.socket
                        .write_all(&bytes)
                        .context("cannot acknowledge")?;
                }
                RST_STREAM | GOAWAY => bail!("the agent ended the stream"),
                _ => {}
            }
        }
    }
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_default();
    bytes.extend(&length.to_be_bytes()[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}

/// Each as a literal that is not to be remembered.
fn headers() -> Vec<u8> {
    let path = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut bytes = Vec::new();
    for (name, value) in headers {
        bytes.push(0);
        for text in [name, value] {
            // All are shorter than 127 bytes, which one byte can tell.
            bytes.push(u8::try_from(text.len()).unwrap_or_default());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// A `DiscoveryRequest`: node (2) with id (1) and cluster (2), resource_names (3), type_url (4).
fn first_message(name: &str) -> Vec<u8> {
    let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    let mut node = Vec::new();
    field(&mut node, 1, b"client");
    field(&mut node, 2, &vec![b'x'; NODE_BYTES]);
    let mut message = Vec::new();
    field(&mut message, 2, &node);
    field(&mut message, 3, name.as_bytes());
    field(&mut message, 4, kind.as_bytes());
    message
}

/// A number, a length and the bytes.
fn field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    let mut length = bytes.len();
    while length > 0x7f {
        message.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend(bytes);
}
