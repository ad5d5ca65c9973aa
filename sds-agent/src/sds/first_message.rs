//! Makes the first message of a stream small before anything keeps room for it.
//!
//! A stock Envoy lists all its extensions in it, 60 KB for each stream; the generated server reads messages
//! into a buffer that never shrinks and lives as long as the stream. Of the list we need nothing.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use ca_proto::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use hyper::body::{Body, Frame};
use prost::Message;

/// The most that a first message is collected to. Longer ones are left to the server, which refuses them.
const LONGEST: usize = 4 * 1024 * 1024;

/// Whether it is compressed, and its length.
const HEADER: usize = 5;

/// A request body whose first message says of the node only who it is.
#[derive(Debug)]
pub(crate) struct FirstMessage<B> {
    body: B,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The first message is not complete. **What is here has not been passed on.**
    Collecting(BytesMut, Kind),
    Passing,
}

/// What the messages are.
#[derive(Clone, Copy, Debug)]
enum Kind {
    StateOfTheWorld,
    Incremental,
}

impl<B> FirstMessage<B> {
    /// The body of a request to this path.
    pub(crate) fn of(path: &str, body: B) -> Self {
        let kind = if path.ends_with("/DeltaSecrets") {
            Kind::Incremental
        } else {
            Kind::StateOfTheWorld
        };
        Self {
            body,
            state: State::Collecting(BytesMut::new(), kind),
        }
    }
}

impl<B> Body for FirstMessage<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        loop {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
            let State::Collecting(collected, kind) = &mut this.state else {
                return Poll::Ready(frame);
            };
            let data = match frame {
                Some(Ok(frame)) => frame.into_data(),
                // A message that was cut short is none.
                end => {
                    this.state = State::Passing;
                    return Poll::Ready(end);
                }
            };
            match data {
                Ok(data) => collected.extend_from_slice(&data),
                Err(trailers) => {
                    this.state = State::Passing;
                    return Poll::Ready(Some(Ok(trailers)));
                }
            }
            if is_enough(collected) {
                let passed_on = shortened(mem::take(collected), *kind);
                this.state = State::Passing;
                return Poll::Ready(Some(Ok(Frame::data(passed_on))));
            }
        }
    }
}

/// Whether there is a whole message, or something that is not worth waiting for.
fn is_enough(bytes: &[u8]) -> bool {
    match parts(bytes) {
        Some((compressed, length, rest)) => compressed || length > LONGEST || rest.len() >= length,
        None => false,
    }
}

/// The same with less of the node; what cannot be read is left to the server as it is.
fn shortened(bytes: BytesMut, kind: Kind) -> Bytes {
    let Some((false, length, rest)) = parts(&bytes) else {
        return bytes.freeze();
    };
    let message = rest.get(..length).and_then(|message| match kind {
        Kind::StateOfTheWorld => {
            let mut request = DiscoveryRequest::decode(message).ok()?;
            request.node = request.node.map(only_id);
            Some(request.encode_to_vec())
        }
        Kind::Incremental => {
            let mut request = DeltaDiscoveryRequest::decode(message).ok()?;
            request.node = request.node.map(only_id);
            Some(request.encode_to_vec())
        }
    });
    let Some((short_length, short)) =
        message.and_then(|message| Some((u32::try_from(message.len()).ok()?, message)))
    else {
        return bytes.freeze();
    };
    let rest = &rest[length..];
    let mut passed_on = BytesMut::with_capacity(HEADER + short.len() + rest.len());
    passed_on.put_u8(0);
    passed_on.put_u32(short_length);
    passed_on.extend_from_slice(&short);
    passed_on.extend_from_slice(rest);
    passed_on.freeze()
}

fn only_id(node: Node) -> Node {
    Node {
        id: node.id,
        ..Node::default()
    }
}

/// Whether the first message is compressed, how long it is, and everything from its start on.
fn parts(bytes: &[u8]) -> Option<(bool, usize, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let [compressed, a, b, c, d] = *header;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    Some((compressed != 0, length, rest))
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible};

    use http_body_util::BodyExt as _;

    use super::*;

    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    async fn passed_on(path: &str, bytes: &[u8], piece: usize) -> Bytes {
        let pieces = bytes.chunks(piece).map(Bytes::copy_from_slice).collect();
        let body = FirstMessage::of(path, Pieces(pieces));
        body.collect().await.unwrap().to_bytes()
    }

    fn framed(message: &impl Message) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
        message.encode(&mut bytes).unwrap();
        bytes
    }

    fn node() -> Option<Node> {
        Some(Node {
            id: "cart".to_owned(),
            client_features: vec!["x".repeat(100); 300],
            ..Node::default()
        })
    }

    #[tokio::test]
    async fn a_first_message_loses_its_list_and_nothing_else() {
        let first = DiscoveryRequest {
            node: node(),
            resource_names: vec!["default".to_owned()],
            ..DiscoveryRequest::default()
        };
        let second = DiscoveryRequest {
            version_info: "2".to_owned(),
            ..first.clone()
        };
        let sent = [framed(&first), framed(&second)].concat();
        let short = DiscoveryRequest {
            node: first.node.clone().map(only_id),
            ..first
        };
        // The second message is not the first's business.
        let wanted = [framed(&short), framed(&second)].concat();
        for piece in [1, 5, 1000, usize::MAX] {
            assert_eq!(passed_on("/x/StreamSecrets", &sent, piece).await, wanted);
        }
        let first = DeltaDiscoveryRequest {
            node: node(),
            resource_names_subscribe: vec!["ROOTCA".to_owned()],
            ..DeltaDiscoveryRequest::default()
        };
        let short = DeltaDiscoveryRequest {
            node: first.node.clone().map(only_id),
            ..first.clone()
        };
        let passed = passed_on("/x/DeltaSecrets", &framed(&first), 1000).await;
        assert_eq!(passed, framed(&short));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_left_as_it_is() {
        let compressed = [1, 0, 0, 0, 9, 1];
        let too_long = [0, 0xff, 0, 0, 0, 1];
        let junk = [0, 0, 0, 0, 2, 0xff, 0xff];
        for bytes in [&compressed[..], &too_long, &junk] {
            assert_eq!(passed_on("/x/StreamSecrets", bytes, 100).await, bytes);
        }
        // Cut short.
        let cut = [0, 0, 0, 0, 9, 1];
        assert_eq!(passed_on("/x/StreamSecrets", &cut, 100).await, Bytes::new());
    }
}
