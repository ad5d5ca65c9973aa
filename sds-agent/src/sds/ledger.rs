//! What one stream wants and what it has got: the part that both protocols share.
//!
//! That a name is due is not a flag that could be forgotten: it is the difference between what was
//! sent and what is current, so that several changes while a client does not listen become one
//! response with the newest contents.

use std::{collections::BTreeMap, sync::Arc};

use ca_proto::{SECRET_TYPE_URL, envoy::config::core::v3::Node};
use time::OffsetDateTime;

use crate::secrets::{Catalogue, Secret, SecretName, Shelf, UnknownName, Version};

/// Istio's proxies put health reports on any discovery stream. They are none of our business.
pub(super) const HEALTH_TYPE_URL: &str = "type.googleapis.com/istio.v1.HealthInformation";

/// The accounts of one stream.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Tells this stream's nonces from those of other streams.
    stream: u64,
    /// Responses so far. The nonce of the latest ends with this number.
    responses: u64,
    /// Responses since the client last said anything.
    unanswered: u32,
    /// Who asks, once it has said so.
    node: Option<Arc<str>>,
    /// What names can mean on it.
    pub(super) catalogue: Catalogue,
    pub(super) wanted: BTreeMap<SecretName, Entry>,
}

/// What is known about one name that a client wants.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    /// What was sent last, and in which response; none if the client still waits.
    sent: Option<(Version, u64)>,
    /// What the client said to that.
    pub(super) verdict: Verdict,
}

/// What a client said to a secret that it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing so far.
    #[default]
    Open,
    /// It uses it.
    Accepted,
    /// It does not, for this reason, and keeps what it had.
    Refused(Arc<str>),
}

/// What a request turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Names, asked for as if for the first time: all of them are due.
    Subscribed,
    /// A response was accepted. Names may have come and gone with it.
    Accepted,
    /// A response was refused, for this reason.
    Refused(String),
    /// About a response that is no longer the latest. Ignored: a request about the latest follows.
    Stale,
    /// Fewer names, or none any more.
    Unsubscribed,
    /// Not for us.
    Health,
}

/// A request that ends the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    /// The first request must say who asks.
    #[error("missing node information")]
    NoNode,
    /// We serve secrets only.
    #[error("this server has no resources of type {0:?}")]
    UnknownType(String),
    /// We serve known secrets only, and above all never one under another's name.
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
}

/// A response, and what is in it.
#[derive(Debug)]
pub(super) struct Answer<R> {
    pub(super) names: Vec<SecretName>,
    pub(super) response: R,
}

impl Ledger {
    /// A new stream. `stream` should not repeat.
    pub(super) fn new(stream: u64, catalogue: Catalogue) -> Self {
        Self {
            stream,
            responses: 0,
            unanswered: 0,
            node: None,
            catalogue,
            wanted: BTreeMap::new(),
        }
    }

    /// Whether a request with this head is to be looked at any further.
    ///
    /// # Errors
    ///
    /// When the stream should end.
    pub(super) fn admit(
        &mut self,
        node: Option<&Node>,
        type_url: &str,
    ) -> Result<bool, BadRequest> {
        if type_url == HEALTH_TYPE_URL {
            return Ok(false);
        }
        self.unanswered = 0;
        // Only the first request need say it.
        if self.node.is_none() {
            let node = node.filter(|node| !node.id.is_empty());
            self.node = Some(node.ok_or(BadRequest::NoNode)?.id.as_str().into());
        }
        // Some clients leave the type out: the service implies it.
        if !type_url.is_empty() && type_url != SECRET_TYPE_URL {
            return Err(BadRequest::UnknownType(type_url.to_owned()));
        }
        Ok(true)
    }

    /// Who asks.
    pub(super) fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// How many responses the client has left without a word.
    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// The number of the response that `nonce` names, if this stream has sent it.
    pub(super) fn response(&self, nonce: &str) -> Option<u64> {
        let (stream, number) = nonce.split_once('-')?;
        let number = number.parse().ok()?;
        let ours = stream.parse() == Ok(self.stream) && (1..=self.responses).contains(&number);
        // Only as we write it: `07-1` is somebody else's.
        (ours && self.nonce_of(number) == nonce).then_some(number)
    }

    /// Whether this is the number of the latest response.
    pub(super) fn is_latest(&self, response: u64) -> bool {
        response == self.responses
    }

    /// The client has taken over what was in this response and in those before it.
    pub(super) fn accept(&mut self, response: u64) {
        for entry in self.wanted.values_mut() {
            let answered = entry
                .sent
                .as_ref()
                .is_some_and(|(_, number)| *number <= response);
            if answered && entry.verdict == Verdict::Open {
                entry.verdict = Verdict::Accepted;
            }
        }
    }

    /// The client has refused what was in this response.
    pub(super) fn refuse(&mut self, response: u64, reason: &str) {
        for entry in self.wanted.values_mut() {
            if entry.sent.as_ref().map(|(_, number)| *number) == Some(response) {
                entry.verdict = Verdict::Refused(reason.into());
            }
        }
    }

    /// The names whose current contents the client has not got, in the order in which they should be
    /// sent: roots first.
    pub(super) fn due<'a>(
        &self,
        shelf: &'a Shelf,
        now: OffsetDateTime,
    ) -> Vec<(SecretName, &'a Secret)> {
        let current = |name: &SecretName| Some((name.clone(), shelf.valid_at(name, now)?));
        self.wanted
            .iter()
            .filter_map(|(name, entry)| Some((entry, current(name)?)))
            .filter(|(entry, (_, secret))| entry.version() != Some(secret.version()))
            .map(|(_, due)| due)
            .collect()
    }

    /// Books a response with these secrets. Gives its nonce.
    pub(super) fn book(&mut self, due: &[(SecretName, &Secret)]) -> String {
        self.responses += 1;
        self.unanswered += 1;
        for (name, secret) in due {
            let entry = Entry {
                sent: Some((secret.version().clone(), self.responses)),
                verdict: Verdict::Open,
            };
            self.wanted.insert(name.clone(), entry);
        }
        self.nonce_of(self.responses)
    }

    /// How far the client has come with the roots, if it wants them.
    pub(super) fn roots_answered(&self) -> Option<Option<&Version>> {
        let entry = self.wanted.get(&SecretName::Roots)?;
        let answered = entry.verdict != Verdict::Open;
        Some(entry.version().filter(|_| answered))
    }

    fn nonce_of(&self, response: u64) -> String {
        format!("{}-{response}", self.stream)
    }
}

impl Entry {
    /// Of a client that has this from an earlier stream.
    pub(super) fn held(version: &str) -> Self {
        Self {
            sent: Some((version.into(), 0)),
            verdict: Verdict::Accepted,
        }
    }

    /// What was sent last.
    pub(super) fn version(&self) -> Option<&Version> {
        self.sent.as_ref().map(|(version, _)| version)
    }
}
