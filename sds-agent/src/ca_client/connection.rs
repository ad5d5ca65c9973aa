//! One connection to the CA: TCP, TLS, HTTP/2.

use std::{
    io,
    task::{Context, Poll},
};

use ca_core::BoxFuture;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::AbortHandle;
use tonic::{body::Body, codegen::Service};

use crate::{
    credential::ClientCertificate,
    transport::{Server, TransportError},
};

/// A connection, closed when dropped. It is also the service that generated clients work over.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    driver: AbortHandle,
}

impl Connection {
    /// Connects, and shows `certificate` if there is one. The roots are read now, so that a new root
    /// file needs no restart.
    pub(super) async fn open(
        server: &Server,
        certificate: Option<ClientCertificate>,
    ) -> Result<Self, TransportError> {
        let tls = server.tls(certificate.map(ClientCertificate::into_der), b"h2")?;
        let address = || server.address.to_string();
        let tls = server.connect(tls).await?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            let source = io::Error::other("the server does not offer HTTP/2");
            return Err(TransportError::Tls {
                address: address(),
                source,
            });
        }
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .map_err(|source| TransportError::Http {
                address: address(),
                source,
            })?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the CA broke");
            }
        });
        Ok(Self {
            sender,
            driver: driver.abort_handle(),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A peer that has gone silent would hold a polite goodbye for minutes.
        self.driver.abort();
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
