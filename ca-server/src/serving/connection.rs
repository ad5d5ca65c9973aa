//! HTTP/2 on one connection, in one task: requests that are read together are answered together.
//!
//! A task for each request would wake the connection for each reply, which then goes out alone: a system call and a wake-up
//! of the client each. Here the connection reads what is there, every request gets its turn, and the replies of those that
//! are done leave in one piece.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream as _};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;

use super::listener::accept;
use super::preface::Begun;
use super::tls::CurrentTls;
use crate::calls::{Calls, CallsOf};

/// How connections are treated.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimits {
    pub(crate) streams: u32,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_timeout: Duration,
    /// After it the client is asked to make a new connection.
    pub(crate) age: Option<Duration>,
    /// What requests under way then get.
    pub(crate) grace: Duration,
}

/// Serves `calls` on all connections until everything ends and the last of them has.
pub(crate) async fn serve_all(
    listener: TcpListener,
    tls: CurrentTls,
    calls: Calls,
    limits: ConnectionLimits,
    mut end: watch::Receiver<bool>,
) {
    // Every connection holds a receiver: when the last is gone, so are they. A handshake holds none, so that nobody waits
    // for a client that has said nothing yet.
    let open = Arc::new(watch::channel(()).0);
    let (ending, connections) = (end.clone(), Arc::clone(&open));
    let accepting = accept(listener, tls, move |stream, peer| {
        let (calls, limits) = (calls.clone(), limits.clone());
        let calls = CallsOf { calls, peer };
        let (end, open) = (ending.clone(), connections.subscribe());
        async move {
            serve(stream, calls, limits, end).await;
            drop(open);
        }
    });
    tokio::select! {
        () = accepting => {}
        _ = end.wait_for(|ended| *ended) => {}
    }
    open.closed().await;
}

/// Serves `calls` until the client goes, the connection is too old, or everything ends; then lets requests under way finish.
pub(crate) async fn serve(
    stream: TlsStream<TcpStream>,
    calls: CallsOf,
    limits: ConnectionLimits,
    mut end: watch::Receiver<bool>,
) {
    let begun = tokio::select! {
        // Whoever has begun before the end is served.
        biased;
        begun = Begun::wait(stream) => begun,
        _ = end.wait_for(|ended| *ended) => return,
    };
    let stream = match begun {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!("connection ended: {error}");
            return;
        }
    };
    let streams = Streams::default();
    let mut builder = http2::Builder::new(streams.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    let connection = builder.serve_connection(TokioIo::new(stream), calls);
    let mut together = std::pin::pin!(Together {
        connection: Box::pin(connection),
        arrived: streams,
        under_way: FuturesUnordered::new(),
    });
    let age = async {
        match limits.age {
            Some(age) => tokio::time::sleep(age).await,
            None => std::future::pending().await,
        }
    };
    // What the wait gives is not kept: it would lock the watch.
    let ended = async {
        let _ = end.wait_for(|ended| *ended).await;
    };
    let result = tokio::select! {
        result = &mut together => result,
        () = ended => together.drain(None).await,
        () = age => together.drain(Some(limits.grace)).await,
    };
    if let Err(error) = result {
        tracing::debug!("connection ended: {error}");
    }
}

type Http2 = http2::Connection<TokioIo<Begun<TlsStream<TcpStream>>>, CallsOf, Streams>;
type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The connection and the requests on it, polled by turns.
struct Together {
    connection: Pin<Box<Http2>>,
    arrived: Streams,
    under_way: FuturesUnordered<Call>,
}

impl Together {
    /// Takes no new requests. Without a limit the end of the program is it.
    async fn drain(mut self: Pin<&mut Self>, limit: Option<Duration>) -> Result<(), hyper::Error> {
        self.connection.as_mut().graceful_shutdown();
        match limit {
            None => self.await,
            Some(limit) => tokio::time::timeout(limit, self).await.unwrap_or(Ok(())),
        }
    }
}

impl Future for Together {
    type Output = Result<(), hyper::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            // Reads requests and writes replies.
            if let Poll::Ready(ended) = self.connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            let arrived = self.arrived.take();
            self.under_way.extend(arrived);
            let mut done = false;
            while let Poll::Ready(Some(())) = Pin::new(&mut self.under_way).poll_next(cx) {
                done = true;
            }
            // Without a reply there is nothing to write, and whatever is waited for wakes us.
            if !done {
                return Poll::Pending;
            }
        }
    }
}

/// Where hyper puts requests that have arrived, for the task of the connection to take them.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<Vec<Call>>>);

impl Streams {
    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, call: F) {
        // Held for a push: only the connection's own task comes here.
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.push(Box::pin(call));
    }
}
