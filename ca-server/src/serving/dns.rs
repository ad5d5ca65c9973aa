//! DNS over TLS (RFC 7858): questions of clients, answered by a resolver behind us.
//!
//! It keeps no answers and makes none of its own but errors. What the resolver says is passed on as it is, also its EDNS options
//! (RFC 5625, 4: a proxy is best when it is transparent).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::listener::tls_connections;
use super::tls::CurrentTls;

mod forwarder;
mod message;

use forwarder::Forwarder;

/// Serves until `draining` is true, then lets questions under way be answered.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: CurrentTls,
    upstream: SocketAddr,
    mut draining: watch::Receiver<bool>,
) {
    let forwarder = Forwarder::to(upstream);
    let mut connections = tls_connections(listener, tls);
    let mut talks = JoinSet::new();
    let ended = draining.clone();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = async {
        while let Some(Ok(connection)) = connections.next().await {
            // Those above the limit are closed at once: waiting, they would hold a socket each.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            // Those that have ended leave nothing behind.
            while talks.try_join_next().is_some() {}
            let (forwarder, ended) = (forwarder.clone(), ended.clone());
            talks.spawn(async move {
                let _place = place;
                if let Err(error) = talk(connection, forwarder, ended).await {
                    tracing::debug!("connection for DNS ended: {error}");
                }
            });
        }
    };
    tokio::select! {
        () = begun(&mut draining) => {}
        () = accept => {}
    }
    drop(connections);
    while talks.join_next().await.is_some() {}
}

/// Answers in the order in which answers come (RFC 7766, 6.2.1.1).
async fn talk(
    connection: impl AsyncRead + AsyncWrite,
    forwarder: Forwarder,
    mut draining: watch::Receiver<bool>,
) -> io::Result<()> {
    let (read, write) = tokio::io::split(connection);
    let mut questions = FramedRead::new(read, framing(MAX_QUESTION));
    let mut answers = FramedWrite::new(write, framing(MAX_ANSWER));
    let mut under_way = FuturesUnordered::new();
    let mut is_listening = true;
    while is_listening || !under_way.is_empty() {
        tokio::select! {
            question = questions.next(), if is_listening && under_way.len() < MAX_UNDER_WAY => match question {
                Some(question) => under_way.push(forwarder.answer(question?.freeze())),
                None => is_listening = false,
            },
            Some(answer) = under_way.next(), if !under_way.is_empty() => {
                // Not a question, and nothing that an answer could be given to.
                let answer: Bytes = answer.ok_or(io::ErrorKind::InvalidData)?;
                timeout(WRITE, answers.send(answer)).await??;
            }
            () = sleep(IDLE), if under_way.is_empty() => is_listening = false,
            () = begun(&mut draining), if is_listening => is_listening = false,
        }
    }
    timeout(WRITE, answers.get_mut().shutdown()).await?
}

async fn begun(draining: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which ends us as well.
    let _ = draining.wait_for(|draining| *draining).await;
}

/// Two bytes of length before each message (RFC 7858, 3.3).
fn framing(max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .length_field_length(2)
        .max_frame_length(max)
        .new_codec()
}

/// A name has at most 255 bytes, and padding fills up to a few hundred (RFC 8467); there is no other reason to be long.
const MAX_QUESTION: usize = 4096;
/// What two bytes can say.
const MAX_ANSWER: usize = u16::MAX as usize;
const MAX_CONNECTIONS: usize = 1024;
/// Questions of one connection.
const MAX_UNDER_WAY: usize = 32;
/// Long enough for a resolver to use a connection again, short enough not to hold those of all who came once.
const IDLE: Duration = Duration::from_secs(30);
/// How long a client may take to read an answer.
const WRITE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    type Ended = JoinHandle<io::Result<()>>;

    /// A connection whose questions nobody answers.
    fn connection() -> (DuplexStream, watch::Sender<bool>, Ended) {
        let (near, far) = duplex(64);
        let (draining, receiver) = watch::channel(false);
        let nobody = Forwarder::to(([127, 0, 0, 1], 9).into());
        (far, draining, tokio::spawn(talk(near, nobody, receiver)))
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_half_a_question_end_a_connection() {
        for sent in [&[][..], &[0, 50, 1, 2, 3]] {
            let (mut far, _draining, ended) = connection();
            let start = Instant::now();
            far.write_all(sent).await.unwrap();
            assert_eq!(
                far.read_u8().await.unwrap_err().kind(),
                io::ErrorKind::UnexpectedEof
            );
            assert_eq!(start.elapsed().as_secs(), IDLE.as_secs());
            ended.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_too_long_and_a_client_that_does_not_read_are_not_put_up_with() {
        let (mut far, _draining, ended) = connection();
        far.write_all(&5000u16.to_be_bytes()).await.unwrap();
        let error = ended.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        let (mut far, _draining, ended) = connection();
        let junk = [&[0, 12][..], &[0; 12]].concat();
        let asking = async {
            loop {
                // Fails when the connection is gone.
                if far.write_all(&junk).await.is_err() {
                    return;
                }
            }
        };
        let start = Instant::now();
        asking.await;
        assert_eq!(start.elapsed().as_secs(), WRITE.as_secs());
        let error = ended.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_drains_does_not_wait_for_idle_clients() {
        let (mut far, draining, ended) = connection();
        let start = Instant::now();
        draining.send_replace(true);
        assert_eq!(
            far.read_u8().await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        ended.await.unwrap().unwrap();
        assert_eq!(start.elapsed().as_secs(), 0);
    }
}
