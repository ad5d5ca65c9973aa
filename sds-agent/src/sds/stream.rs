//! One open stream: shuttles messages between a client and its state machine.

use std::{collections::BTreeMap, fmt::Debug, pin::Pin, sync::Arc};

use futures_util::stream::{self, Stream};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    ledger::{Answer, BadRequest, Heard, Ledger},
    roll::{Line, Roll},
};
use crate::{
    clock,
    metrics::Metrics,
    secrets::{Catalogue, Following, Place, SecretName, Secrets, Shelf, TooMany},
};

/// How many responses a client may leave without a word.
///
/// Whoever does not read fills the window that all streams of its connection share. With this limit
/// it cannot: a few small responses, and the stream ends. A client that reads and never answers,
/// against the protocol, comes back and is served again.
const MOST_UNANSWERED: u32 = 8;

/// A state machine for one stream. There are two, for the two ways to discover secrets.
pub(super) trait Protocol {
    /// As people call it.
    const NAME: &'static str;

    type Request: Debug;
    type Response;

    /// A new stream. `stream` should not repeat.
    fn new(stream: u64, catalogue: Catalogue) -> Self;

    /// Takes a request in.
    ///
    /// # Errors
    ///
    /// When the stream should end.
    fn hear(&mut self, request: &Self::Request) -> Result<Heard, BadRequest>;

    /// The response that is due, if any: the subscribed names whose contents the client has not got.
    fn answer(&mut self, shelf: &Shelf, now: OffsetDateTime) -> Option<Answer<Self::Response>>;

    /// The accounts.
    fn ledger(&self) -> &Ledger;
}

/// What a response stream is to the generated server.
pub(super) type Responses<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// A stream with everything that it needs. It does something only while its client reads: what
/// changes meanwhile waits on the shelf and becomes one response.
pub(super) struct OpenStream<P: Protocol> {
    number: u64,
    protocol: P,
    requests: Streaming<P::Request>,
    secrets: Secrets,
    place: Place,
    line: Line,
    /// What the client has asked for that is followed only while somebody wants it.
    followed: BTreeMap<SecretName, Following>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl<P> OpenStream<P>
where
    P: Protocol + Send + 'static,
    P::Request: Send,
    P::Response: Send,
{
    pub(super) fn new(
        number: u64,
        requests: Streaming<P::Request>,
        secrets: Secrets,
        metrics: Arc<Metrics>,
        roll: &Roll,
        stop: CancellationToken,
    ) -> Self {
        metrics.streams.inc();
        tracing::debug!(stream = number, "a stream opened");
        Self {
            number,
            protocol: P::new(number, secrets.catalogue()),
            requests,
            place: secrets.audience().place(number),
            line: roll.enter(number, P::NAME, clock::now()),
            secrets,
            followed: BTreeMap::new(),
            metrics,
            stop,
        }
    }

    /// Everything that is sent on it.
    pub(super) fn responses(self) -> Responses<P::Response> {
        Box::pin(stream::try_unfold(self, Self::next))
    }

    /// The next response, or the end.
    async fn next(mut self) -> Result<Option<(P::Response, Self)>, Status> {
        loop {
            let shelf = self.secrets.shelf();
            if let Some(answer) = self.protocol.answer(&shelf, clock::now()) {
                return Ok(Some((self.sent(answer)?, self)));
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(None),
                // Before changes: a request may say that the client no longer wants them.
                request = self.requests.message() => match request {
                    Ok(Some(request)) => self.hear(&request)?,
                    // The client has gone, politely or not.
                    Ok(None) => return Ok(None),
                    Err(status) => {
                        tracing::debug!(stream = self.number, %status, "a stream broke");
                        return Ok(None);
                    }
                },
                changed = self.secrets.changed() => if changed.is_err() {
                    return Ok(None);
                },
            }
        }
    }

    fn hear(&mut self, request: &P::Request) -> Result<(), Status> {
        let stream = self.number;
        match self.protocol.hear(request) {
            Ok(Heard::Refused(reason)) => {
                self.metrics.rejects.inc();
                let (node, names) = (self.protocol.ledger().node(), self.names());
                tracing::warn!(
                    stream,
                    node,
                    ?names,
                    reason,
                    "the client refused a response"
                );
            }
            Ok(Heard::Stale) => {
                self.metrics.heard_late();
            }
            Ok(heard) => tracing::debug!(stream, ?heard, names = ?self.names(), "heard"),
            Err(error) => {
                tracing::warn!(stream, %error, "a request was refused");
                return Err(error.into());
            }
        }
        let ledger = self.protocol.ledger();
        self.place.follow(ledger.roots_answered());
        self.line.note(ledger);
        self.followed
            .retain(|name, _| ledger.wanted.contains_key(name));
        for name in ledger.wanted.keys() {
            if !name.is_of_the_workload() && !self.followed.contains_key(name) {
                let following = self.secrets.follow(name)?;
                self.followed
                    .extend(following.map(|following| (name.clone(), following)));
            }
        }
        Ok(())
    }

    fn sent(&self, answer: Answer<P::Response>) -> Result<P::Response, Status> {
        let ledger = self.protocol.ledger();
        if ledger.unanswered() > MOST_UNANSWERED {
            let stream = self.number;
            tracing::warn!(stream, "the client does not answer; its stream is closed");
            return Err(Status::resource_exhausted(format!(
                "{MOST_UNANSWERED} responses in a row were not answered"
            )));
        }
        self.metrics.pushed(&answer.names);
        self.place.follow(ledger.roots_answered());
        self.line.note(ledger);
        tracing::debug!(stream = self.number, names = ?answer.names, "sent");
        Ok(answer.response)
    }

    fn names(&self) -> Vec<String> {
        let wanted = self.protocol.ledger().wanted.keys();
        wanted.map(ToString::to_string).collect()
    }
}

impl<P: Protocol> Drop for OpenStream<P> {
    fn drop(&mut self) {
        self.metrics.streams.dec();
        tracing::debug!(stream = self.number, "a stream closed");
    }
}

impl From<BadRequest> for Status {
    fn from(error: BadRequest) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<TooMany> for Status {
    fn from(error: TooMany) -> Self {
        Self::resource_exhausted(error.to_string())
    }
}
