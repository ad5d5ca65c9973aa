//! One question and its answer over HTTP/1.1, on a connection of their own.
//!
//! Questions are half a certificate's life apart: a connection that is kept that long has died
//! unnoticed in some middlebox by then.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::{Server, TransportError};

/// More than any chain needs, and little enough to hold.
const LONGEST_BODY: usize = 256 * 1024;

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Wiped, because it may hold a token.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// Whether a status may well be another one in a moment: too many requests, or the server's own trouble.
pub(crate) fn is_passing(status: u16) -> bool {
    status == 429 || (500..600).contains(&status)
}

/// Asks over TLS. **The caller bounds the time.**
///
/// # Errors
///
/// When there is no answer. One that says no is an answer.
pub(crate) async fn ask(
    server: &Server,
    request: Request<Bytes>,
) -> Result<Answer, TransportError> {
    let tls = server.tls(None, b"http/1.1")?;
    let stream = server.connect(tls).await?;
    exchange(stream, &server.address.to_string(), request).await
}

/// Asks somebody on this machine's own network who has no TLS. **The caller bounds the time.**
///
/// # Errors
///
/// As [`ask`].
pub(crate) async fn ask_in_the_clear(
    host: &str,
    port: u16,
    request: Request<Bytes>,
) -> Result<Answer, TransportError> {
    let stream = super::connect(host, port).await?;
    exchange(stream, &format!("{host}:{port}"), request).await
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    address: &str,
    request: Request<Bytes>,
) -> Result<Answer, TransportError> {
    let failed = |source| TransportError::Http {
        address: address.to_owned(),
        source,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let mut request = request.map(Full::new);
    if let Ok(host) = HeaderValue::from_str(address) {
        request.headers_mut().insert(header::HOST, host);
    }
    let answer = async {
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(failed)?
            .into_parts();
        let body = Limited::new(body, LONGEST_BODY).collect().await;
        let body = body.map_err(|_| TransportError::Body {
            address: address.to_owned(),
            limit: LONGEST_BODY,
        })?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: Zeroizing::new(body.to_bytes().to_vec()),
        })
    };
    // The connection ends with the answer, not the other way round: nothing is left behind to run.
    let connection = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        never = connection => never,
    }
}
