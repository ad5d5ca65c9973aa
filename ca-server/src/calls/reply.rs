//! What goes out, with the place that it takes up until it has.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::addresses::Place;

/// A client need not take what it has asked for: HTTP/2 lets it hold the door shut for as long as it likes, and the reply waits
/// in memory. So the address has its place until the reply has left, or the client has gone, and no address makes us
/// keep more replies than its bound.
#[derive(Debug)]
pub(crate) struct Reply {
    body: Body,
    _place: Option<Place>,
}

impl Reply {
    pub(super) fn new(body: Body, place: Option<Place>) -> Self {
        Self {
            body,
            _place: place,
        }
    }
}

impl hyper::body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
