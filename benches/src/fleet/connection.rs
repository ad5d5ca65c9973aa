//! One connection to the CA: TCP, TLS, HTTP/2, and gRPC written by hand, so that a client costs little.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use ca_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use h2::client::SendRequest;
use http::header::{AUTHORIZATION, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Request};
use prost::Message as _;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::Failure;
use super::target::Target;

/// Says goodbye and closes when it and its senders are dropped.
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    driver: AbortHandle,
}

/// A request as it travels: made once, sent often.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// The message behind its gRPC prefix.
    body: Bytes,
    authorization: Option<HeaderValue>,
}

impl Prepared {
    pub(crate) fn new(
        csr_pem: String,
        ttl_seconds: i64,
        authorization: Option<HeaderValue>,
    ) -> Self {
        let message = IstioCertificateRequest {
            csr: csr_pem,
            validity_duration: ttl_seconds,
            metadata: None,
        };
        Self {
            body: framed(&message.encode_to_vec()),
            authorization,
        }
    }

    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// Another message, which may be none.
    pub(crate) fn with_body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    /// The same wish by somebody who shows a certificate instead of a token.
    pub(crate) fn without_token(self) -> Self {
        Self {
            authorization: None,
            ..self
        }
    }
}

/// A message of gRPC, not compressed.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(5 + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(message);
    body.freeze()
}

/// TCP and TLS.
pub(crate) async fn handshake(
    target: &Target,
    tls: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, Failure> {
    let tcp = target.connect().await?;
    TlsConnector::from(tls)
        .connect(target.server_name.clone(), tcp)
        .await
        .map_err(|_| Failure::Handshake)
}

impl Connection {
    pub(crate) async fn open(target: &Target, tls: Arc<ClientConfig>) -> Result<Self, Failure> {
        let stream = handshake(target, tls).await?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(stream)
            .await?;
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer hears of the end too.
            let _ = connection.await;
        });
        Ok(Self {
            sender,
            driver: driver.abort_handle(),
        })
    }

    pub(crate) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.driver.is_finished()
    }
}

/// Asks for a certificate; gives the elements of the answer. `timeout` is what the server is told.
pub(crate) async fn ask(
    sender: SendRequest<Bytes>,
    target: &Target,
    prepared: &Prepared,
    timeout: &HeaderValue,
) -> Result<Vec<String>, Failure> {
    let request = request(target, prepared, timeout)?;
    let mut sender = sender.ready().await?;
    let (response, mut stream) = sender.send_request(request, false)?;
    stream.send_data(prepared.body.clone(), true)?;
    let response = response.await?;
    if !response.status().is_success() {
        return Err(Failure::Malformed);
    }
    // An answer without a message has its status in front.
    if let Some(code) = code(response.headers())? {
        return Err(Failure::Code(code));
    }
    let mut body = response.into_body();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    match code(&trailers)? {
        Some(0) => {}
        Some(code) => return Err(Failure::Code(code)),
        None => return Err(Failure::Malformed),
    }
    let message = message.get(5..).ok_or(Failure::Malformed)?;
    let answer = IstioCertificateResponse::decode(message).map_err(|_| Failure::Malformed)?;
    // A leaf and the roots at least.
    if answer.cert_chain.len() < 2 {
        return Err(Failure::Malformed);
    }
    Ok(answer.cert_chain)
}

pub(crate) fn request(
    target: &Target,
    prepared: &Prepared,
    timeout: &HeaderValue,
) -> Result<Request<()>, Failure> {
    let mut request = Request::post(target.method.clone())
        .header(TE, HeaderValue::from_static("trailers"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header("grpc-timeout", timeout);
    if let Some(authorization) = &prepared.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    request.body(()).map_err(|_| Failure::Malformed)
}

fn code(headers: &HeaderMap) -> Result<Option<u8>, Failure> {
    let Some(value) = headers.get("grpc-status") else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| Failure::Malformed)?;
    text.parse().map(Some).map_err(|_| Failure::Malformed)
}

/// More than any answer, so that flow control never holds one up.
const WINDOW: u32 = 1 << 20;
