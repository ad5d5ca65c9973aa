//! The resolver behind us: over UDP, and over TCP what does not fit.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use ca_core::random_unit;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::message::{self, Answer, Asked, Question};

/// Asks one resolver. Cheap to clone; all clones share one limit.
#[derive(Clone, Debug)]
pub(super) struct Forwarder {
    upstream: SocketAddr,
    /// Each question has a socket.
    sockets: Arc<Semaphore>,
}

impl Forwarder {
    pub(super) fn to(upstream: SocketAddr) -> Self {
        Self {
            upstream,
            sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
        }
    }

    /// The answer to a message, within [`DEADLINE`]; `None` when there can be none.
    pub(super) async fn answer(&self, message: Bytes) -> Option<Bytes> {
        let question = match message::read(&message) {
            Asked::Question(question) => question,
            Asked::Refused(answer) => return Some(answer),
            Asked::Nonsense => return None,
        };
        let failure = match timeout(DEADLINE, self.ask(&question)).await {
            Ok(Ok(answer)) => return Some(question.returned(answer)),
            Ok(Err(error)) => error,
            Err(late) => late.into(),
        };
        tracing::debug!(upstream = %self.upstream, "DNS question not answered: {failure}");
        Some(question.failed())
    }

    async fn ask(&self, question: &Question) -> io::Result<Answer> {
        // Closed never.
        let _socket = self.sockets.acquire().await.map_err(io::Error::other)?;
        // A port of its own, a number that cannot be guessed, and one peer: what others send does not get in.
        let question = question.numbered((random_unit() * 65536.0) as u16);
        let answer = self.ask_over_udp(&question).await?;
        if answer.is_truncated() {
            return self.ask_over_tcp(&question).await;
        }
        Ok(answer)
    }

    async fn ask_over_udp(&self, question: &Question) -> io::Result<Answer> {
        let any = match self.upstream {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(self.upstream).await?;
        let mut sending = interval(RESEND);
        sending.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            tokio::select! {
                // At once, and again as long as there is no answer.
                _ = sending.tick() => {
                    socket.send(question.as_bytes()).await?;
                }
                received = socket.recv(&mut buffer) => {
                    if let Some(answer) = question.answered_by(&buffer[..received?]) {
                        return Ok(answer);
                    }
                }
            }
        }
    }

    async fn ask_over_tcp(&self, question: &Question) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(self.upstream).await?;
        let bytes = question.as_bytes();
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        // In one write: resolvers may close on a length without a message.
        let message = [&length.to_be_bytes(), bytes].concat();
        stream.write_all(&message).await?;
        let mut length = [0; 2];
        stream.read_exact(&mut length).await?;
        let mut answer = vec![0; usize::from((&length[..]).get_u16())];
        stream.read_exact(&mut answer).await?;
        let answer = question.answered_by(&answer);
        answer.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// For the whole of one question. Stub resolvers give up after five seconds (resolv.conf(5)): ours is told before.
const DEADLINE: Duration = Duration::from_secs(4);
/// Datagrams get lost.
const RESEND: Duration = Duration::from_secs(1);
/// Of all connections together.
const MAX_SOCKETS: usize = 512;
