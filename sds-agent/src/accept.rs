//! The life of a listener: accept until told to stop, then let open connections finish.

use std::{io, time::Duration};

use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How long open connections may take to finish once the end has been called.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves every connection of `listener` with `serve` until `stop`.
pub(crate) async fn accept_until<L, C>(
    mut listener: L,
    stop: CancellationToken,
    serve: impl Fn(L::Stream) -> C,
) where
    L: Listener,
    C: GracefulConnection + Send + 'static,
    C::Error: std::fmt::Display + Send,
{
    let connections = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match stream {
            Ok(stream) => {
                let connection = connections.watch(serve(stream));
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection broke");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: spinning on it would help nobody.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, connections.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some connections did not finish in time");
    }
}

/// A socket that connections come from.
pub(crate) trait Listener {
    /// One connection.
    type Stream;

    /// Waits for the next connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}
