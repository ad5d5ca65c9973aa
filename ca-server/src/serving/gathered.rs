//! What one connection has to say, gathered until somebody lets it go: settings, acknowledgements, the head, the body and
//! the end of a reply leave as one record in one system call, and wake the other end once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose `flush` does nothing: what was written leaves when it is let [`go`](Outgoing::go), or is too much to keep.
#[derive(Debug)]
pub(super) struct Gathered<T>(Arc<Mutex<Inner<T>>>);

/// Lets it go.
#[derive(Debug)]
pub(super) struct Outgoing<T>(Arc<Mutex<Inner<T>>>);

#[derive(Debug)]
struct Inner<T> {
    stream: T,
    /// Empty, and without memory, between the requests.
    outgoing: Vec<u8>,
    sent: usize,
    is_ended: bool,
}

impl<T> Gathered<T> {
    pub(super) fn new(stream: T) -> (Self, Outgoing<T>) {
        let inner = Arc::new(Mutex::new(Inner {
            stream,
            outgoing: Vec::new(),
            sent: 0,
            is_ended: false,
        }));
        (Self(Arc::clone(&inner)), Outgoing(inner))
    }
}

/// Both ends are held by one task: nobody ever waits here.
fn lock<T>(inner: &Mutex<Inner<T>>) -> MutexGuard<'_, Inner<T>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncWrite + Unpin> Outgoing<T> {
    /// Sends what was gathered; `Pending` when the other end is slow to take it.
    pub(super) fn go(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        if inner.is_ended || inner.outgoing.is_empty() {
            return Poll::Ready(Ok(()));
        }
        inner.send(cx)
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let rest = &self.outgoing[self.sent..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        (self.outgoing, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Room for more; sends first when there is none.
    fn room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.outgoing.len() >= MOST {
            ready!(self.send(cx))?;
        }
        Poll::Ready(Ok(MOST - self.outgoing.len()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        let room = ready!(inner.room(cx))?;
        let mut left = room;
        for piece in pieces {
            let taken = piece.len().min(left);
            inner.outgoing.extend_from_slice(&piece[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(room - left))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        let mut byte = [0];
        let mut rest = ReadBuf::new(&mut byte);
        // Whoever has said goodbye and gone does not hear ours.
        if let Poll::Ready(read) = Pin::new(&mut inner.stream).poll_read(cx, &mut rest)
            && (read.is_err() || rest.filled().is_empty())
        {
            inner.is_ended = true;
            return Poll::Ready(Ok(()));
        }
        ready!(inner.send(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

/// A record of TLS.
const MOST: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_is_written_leaves_when_it_is_let_go() {
        let (near, mut far) = tokio::io::duplex(2 * MOST);
        let (mut gathered, outgoing) = Gathered::new(near);
        gathered.write_all(b"head, ").await.unwrap();
        gathered.flush().await.unwrap();
        gathered.write_all(b"body").await.unwrap();
        gathered.flush().await.unwrap();
        let mut read = [0; 32];
        let before = poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut read);
            Poll::Ready(Pin::new(&mut far).poll_read(cx, &mut buffer).is_pending())
        });
        assert!(before.await);
        poll_fn(|cx| outgoing.go(cx)).await.unwrap();
        let count = far.read(&mut read).await.unwrap();
        assert_eq!(&read[..count], b"head, body");
    }

    #[tokio::test]
    async fn more_than_is_kept_passes_through_in_order() {
        let (near, mut far) = tokio::io::duplex(1000);
        let (mut gathered, outgoing) = Gathered::new(near);
        let all: Vec<u8> = (0..5 * MOST).map(|number| (number % 251) as u8).collect();
        let sent = all.clone();
        let writing = async move {
            gathered.write_all(&sent).await.unwrap();
            gathered.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let (_, count) = tokio::join!(writing, far.read_to_end(&mut read));
        assert_eq!(count.unwrap(), all.len());
        assert!(read == all);
        poll_fn(|cx| outgoing.go(cx)).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_has_gone_is_told_nothing() {
        let (near, far) = tokio::io::duplex(1000);
        let (mut gathered, outgoing) = Gathered::new(near);
        gathered.write_all(b"goodbye").await.unwrap();
        drop(far);
        gathered.shutdown().await.unwrap();
        poll_fn(|cx| outgoing.go(cx)).await.unwrap();
    }
}
