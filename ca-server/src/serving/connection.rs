//! HTTP/2 on one connection, in one task: requests that are read together are answered together.
//!
//! A task for each request would wake the connection for each reply, which then goes out alone: a system call and a wake-up
//! of the client each. Here the connection reads what is there, every request gets its turn, and the replies of those that
//! are done leave in one piece.

use std::future::Future;
use std::io;
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

use super::gathered::{Gathered, Outgoing};
use super::listener::accept;
use super::preface::Begun;
use super::rounds::Rounds;
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
        let lateness = calls.service.admission.connection();
        let calls = CallsOf {
            calls,
            peer,
            lateness,
        };
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
        .max_pending_accept_reset_streams(TAKEN_BACK)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    let (stream, outgoing) = Gathered::new(stream);
    let rounds = Rounds::new(calls.lateness.clone());
    let connection = builder.serve_connection(TokioIo::new(stream), calls);
    let mut together = std::pin::pin!(Together {
        parts: Parts {
            connection: Box::pin(connection),
            arrived: streams,
            under_way: FuturesUnordered::new(),
            outgoing,
        },
        rounds,
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

type Tls = Begun<TlsStream<TcpStream>>;
type Http2 = http2::Connection<TokioIo<Gathered<Tls>>, CallsOf, Streams>;
type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The connection and the requests on it, polled by turns.
struct Together {
    parts: Parts,
    rounds: Rounds,
}

struct Parts {
    connection: Pin<Box<Http2>>,
    arrived: Streams,
    under_way: FuturesUnordered<Call>,
    outgoing: Outgoing<Tls>,
}

impl Together {
    /// Takes no new requests. Without a limit the end of the program is it.
    async fn drain(mut self: Pin<&mut Self>, limit: Option<Duration>) -> io::Result<()> {
        self.parts.connection.as_mut().graceful_shutdown();
        match limit {
            None => self.await,
            Some(limit) => tokio::time::timeout(limit, self).await.unwrap_or(Ok(())),
        }
    }
}

impl Future for Together {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { parts, rounds } = &mut *self;
        let polled = rounds.poll(cx, |cx| parts.poll(cx));
        // What does not leave now leaves when we are woken for it.
        let gone = parts.outgoing.go(cx);
        match (polled, gone) {
            (Poll::Ready(ended), _) => Poll::Ready(ended),
            (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            _ => Poll::Pending,
        }
    }
}

impl Parts {
    /// One round: whoever did something for another has woken it, for the next.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Reads requests and gathers replies.
        if let Poll::Ready(ended) = self.connection.as_mut().poll(cx) {
            return Poll::Ready(ended.map_err(io::Error::other));
        }
        self.under_way.extend(self.arrived.take());
        while let Poll::Ready(Some(())) = Pin::new(&mut self.under_way).poll_next(cx) {}
        Poll::Pending
    }
}

/// How many requests a client may take back before they were begun. When the server is too busy its clients do that, each
/// after its own deadline, and with the default of 20 they would lose their connections for it: a handshake costs as much
/// as five certificates.
const TAKEN_BACK: usize = 200;

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
