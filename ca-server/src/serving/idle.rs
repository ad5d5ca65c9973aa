//! A connection that ends when nothing happens on it.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Reads and writes through to `inner`. When nothing has been read or written for the limit, whatever waits fails with
/// [`io::ErrorKind::TimedOut`], which ends a server's connection: also with a client that asks and never reads.
#[derive(Debug)]
pub(super) struct IdleLimit<T> {
    inner: T,
    limit: Duration,
    end: Pin<Box<Sleep>>,
}

impl<T> IdleLimit<T> {
    pub(super) fn new(inner: T, limit: Duration) -> Self {
        Self {
            inner,
            limit,
            end: Box::pin(tokio::time::sleep(limit)),
        }
    }

    fn something_happened(&mut self) {
        self.end.as_mut().reset(Instant::now() + self.limit);
    }

    /// Where `inner` has to wait: until the limit.
    fn wait<R>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        ready!(self.end.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for IdleLimit<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, buffer) {
            self.something_happened();
            return Poll::Ready(read);
        }
        self.wait(cx)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for IdleLimit<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.inner).poll_write(cx, bytes) {
            self.something_happened();
            return Poll::Ready(written);
        }
        self.wait(cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed),
            Poll::Pending => self.wait(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_byte_either_way_starts_the_wait_anew_and_silence_ends_it() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = IdleLimit::new(near, Duration::from_secs(90));
        let start = Instant::now();
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(60)).await;
            far.write_all(b"x").await.unwrap();
            assert_eq!(near.read_u8().await.unwrap(), b'x');
            tokio::time::advance(Duration::from_secs(60)).await;
            near.write_all(b"y").await.unwrap();
        }
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 6 * 60 + 90);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_read_is_not_written_to_for_ever() {
        let (near, _far) = tokio::io::duplex(64);
        let mut near = IdleLimit::new(near, Duration::from_secs(90));
        let start = Instant::now();
        let error = near.write_all(&[0; 65]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 90);
    }
}
