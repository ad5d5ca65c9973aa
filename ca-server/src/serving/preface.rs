//! The first bytes of HTTP/2, which a client has at hand when it connects: one that does not send them wants something else.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// A connection that has begun well. Reading gives the first bytes again.
#[derive(Debug)]
pub(super) struct Begun<T> {
    first: Vec<u8>,
    inner: T,
}

impl<T: AsyncRead + Unpin> Begun<T> {
    /// Waits for the preface, which no later timer of HTTP/2 does.
    pub(super) async fn wait(mut inner: T) -> io::Result<Self> {
        let mut first = vec![0; PREFACE.len()];
        timeout(DEADLINE, inner.read_exact(&mut first)).await??;
        if first != PREFACE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP/2"));
        }
        Ok(Self { first, inner })
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Begun<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..count]);
        self.first.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Begun<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn what_was_read_is_read_again() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(PREFACE).await.unwrap();
        far.write_all(b"more").await.unwrap();
        let mut begun = Begun::wait(near).await.unwrap();
        let mut read = vec![0; PREFACE.len() + 4];
        begun.read_exact(&mut read).await.unwrap();
        assert_eq!(read, [PREFACE, b"more"].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_half_of_it_or_something_else_is_not_waited_for() {
        for (sent, kind) in [
            (&PREFACE[..5], io::ErrorKind::TimedOut),
            (
                b"GET / HTTP/1.1\r\nHost: ca\r\n\r\n",
                io::ErrorKind::InvalidData,
            ),
        ] {
            let (near, mut far) = tokio::io::duplex(64);
            far.write_all(sent).await.unwrap();
            let start = Instant::now();
            assert_eq!(Begun::wait(near).await.unwrap_err().kind(), kind);
            assert!(start.elapsed() <= DEADLINE + Duration::from_secs(1));
        }
    }
}
