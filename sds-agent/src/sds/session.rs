//! One SDS stream as a state machine: what is subscribed, what was sent, what came back.
//!
//! It has no socket, no clock and no secret of its own. [`Session::hear`] takes a request,
//! [`Session::answer`] makes the response that is due, if any. That a name is due is not a flag that
//! could be forgotten: it is the difference between what was sent and what is current, so that
//! several changes while a client does not listen become one response with the newest contents.

use std::collections::BTreeMap;

use ca_proto::{
    SECRET_TYPE_URL,
    envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
};

use super::resource::{SecretName, UnknownName};
use crate::secrets::WorkloadSecret;

/// Istio's proxies put health reports on any discovery stream. They are none of our business.
const HEALTH_TYPE_URL: &str = "type.googleapis.com/istio.v1.HealthInformation";

/// The state of one stream.
#[derive(Debug)]
pub(crate) struct Session {
    /// Tells this stream's nonces from those of other streams.
    stream: u64,
    /// Responses so far.
    responses: u64,
    /// Whether the client has said who it is.
    introduced: bool,
    subscription: Option<Subscription>,
}

/// What a client wants.
#[derive(Debug, Default)]
struct Subscription {
    /// Each name with the generation that was sent last; none if the client still waits for one.
    names: BTreeMap<SecretName, Option<u64>>,
    /// The nonce of the latest response; empty before the first.
    nonce: String,
}

/// What a request turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Names, asked for as if for the first time: all of them are due.
    Subscribed,
    /// The latest response was accepted. Names may have come and gone with it.
    Accepted,
    /// A response was refused, for this reason.
    Refused(String),
    /// About a response that is no longer the latest. Ignored: a request about the latest follows.
    Stale,
    /// No names any more.
    Unsubscribed,
    /// Not for us.
    Health,
}

/// A request that ends the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
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

impl Session {
    /// A new stream. `stream` should not repeat.
    pub(crate) fn new(stream: u64) -> Self {
        Self {
            stream,
            responses: 0,
            introduced: false,
            subscription: None,
        }
    }

    /// Takes a request in.
    ///
    /// # Errors
    ///
    /// When the stream should end.
    pub(crate) fn hear(&mut self, request: &DiscoveryRequest) -> Result<Heard, BadRequest> {
        if request.type_url == HEALTH_TYPE_URL {
            return Ok(Heard::Health);
        }
        self.introduce(request)?;
        // Some clients leave the type out: the service implies it.
        if !request.type_url.is_empty() && request.type_url != SECRET_TYPE_URL {
            return Err(BadRequest::UnknownType(request.type_url.clone()));
        }

        let refused = request
            .error_detail
            .as_ref()
            .map(|status| status.message.clone());
        if let Some(reason) = &refused
            && self.subscription.is_none()
        {
            // About something that another stream sent. There is nothing to correct.
            return Ok(Heard::Refused(reason.clone()));
        }
        if request.resource_names.is_empty() {
            self.subscription = None;
            return Ok(refused.map_or(Heard::Unsubscribed, Heard::Refused));
        }
        let first = request.response_nonce.is_empty() && refused.is_none();
        match self.subscription.as_mut().filter(|_| !first) {
            // A reconnecting client names the version that it has. It is answered all the same: the
            // version may come from an agent that is gone.
            None => {
                self.subscription = Some(Subscription::to(&request.resource_names)?);
                Ok(Heard::Subscribed)
            }
            Some(current) if current.nonce == request.response_nonce => {
                // Also when it refuses: new names come with whichever request is next.
                current.change_to(&request.resource_names)?;
                Ok(refused.map_or(Heard::Accepted, Heard::Refused))
            }
            Some(_) => Ok(refused.map_or(Heard::Stale, Heard::Refused)),
        }
    }

    /// The response that is due, if any: the subscribed names whose contents the client has not got.
    pub(crate) fn answer(&mut self, current: Option<&WorkloadSecret>) -> Option<Answer> {
        let secret = current?;
        let names: Vec<_> = self.due(secret).collect();
        let subscription = self.subscription.as_mut().filter(|_| !names.is_empty())?;
        self.responses += 1;
        subscription.nonce = format!("{}-{}", self.stream, self.responses);
        for name in &names {
            subscription
                .names
                .insert(*name, Some(secret.generation(name.part())));
        }
        let response = DiscoveryResponse {
            version_info: secret.version(),
            resources: names.iter().map(|name| name.pack(secret)).collect(),
            type_url: SECRET_TYPE_URL.to_owned(),
            nonce: subscription.nonce.clone(),
            ..DiscoveryResponse::default()
        };
        Some(Answer { names, response })
    }

    fn introduce(&mut self, request: &DiscoveryRequest) -> Result<(), BadRequest> {
        if !self.introduced {
            let named = request
                .node
                .as_ref()
                .is_some_and(|node| !node.id.is_empty());
            self.introduced = named;
            return named.then_some(()).ok_or(BadRequest::NoNode);
        }
        Ok(())
    }

    /// In the order in which they should be sent: roots first.
    fn due<'a>(&'a self, secret: &'a WorkloadSecret) -> impl Iterator<Item = SecretName> + 'a {
        self.subscription
            .iter()
            .flat_map(|subscription| &subscription.names)
            .filter(|(name, sent)| **sent != Some(secret.generation(name.part())))
            .map(|(name, _)| *name)
    }
}

impl Subscription {
    fn to(names: &[String]) -> Result<Self, UnknownName> {
        let mut subscription = Self::default();
        subscription.change_to(names)?;
        Ok(subscription)
    }

    /// Takes over a whole set of names. Those that are new are due; those that stay are not.
    fn change_to(&mut self, names: &[String]) -> Result<(), UnknownName> {
        let mut changed = BTreeMap::new();
        for name in names {
            let name: SecretName = name.parse()?;
            changed.insert(name, self.names.get(&name).copied().flatten());
        }
        self.names = changed;
        Ok(())
    }
}

/// A response, and what is in it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) names: Vec<SecretName>,
    pub(crate) response: DiscoveryResponse,
}

#[cfg(test)]
mod tests;
