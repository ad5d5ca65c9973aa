//! One state-of-the-world stream as a state machine: what is subscribed, what was sent, what came
//! back.
//!
//! It has no socket, no clock and no secret of its own. [`Session::hear`](Protocol::hear) takes a
//! request, [`Session::answer`](Protocol::answer) makes the response that is due, if any.

use std::collections::BTreeMap;

use ca_proto::{
    SECRET_TYPE_URL,
    envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
};
use time::OffsetDateTime;

use super::{
    ledger::{Answer, BadRequest, Heard, Ledger},
    resource::pack,
    stream::Protocol,
};
use crate::secrets::{Catalogue, Shelf, UnknownName};

/// The state of one stream.
#[derive(Debug)]
pub(super) struct Session {
    ledger: Ledger,
    /// Whether requests so far amount to a subscription. Responses to an earlier one are history.
    subscription: Option<Subscription>,
}

/// Says which responses belong to what a client wants now.
#[derive(Debug)]
struct Subscription {
    /// Whether a response has been sent.
    answered: bool,
}

impl Protocol for Session {
    const NAME: &'static str = "state of the world";

    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn new(stream: u64, catalogue: Catalogue) -> Self {
        Self {
            ledger: Ledger::new(stream, catalogue),
            subscription: None,
        }
    }

    fn hear(&mut self, request: &DiscoveryRequest) -> Result<Heard, BadRequest> {
        if !self
            .ledger
            .admit(request.node.as_ref(), &request.type_url)?
        {
            return Ok(Heard::Health);
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
            self.ledger.wanted.clear();
            return Ok(refused.map_or(Heard::Unsubscribed, Heard::Refused));
        }
        let first = request.response_nonce.is_empty() && refused.is_none();
        let Some(subscription) = self.subscription.as_ref().filter(|_| !first) else {
            // A reconnecting client names the version that it has. It is answered all the same: the
            // version may come from an agent that is gone.
            self.ledger.wanted.clear();
            self.change_to(&request.resource_names)?;
            self.subscription = Some(Subscription { answered: false });
            return Ok(Heard::Subscribed);
        };
        let response = self.ledger.response(&request.response_nonce);
        let response = response.filter(|_| subscription.answered);
        if let Some(latest) = response.filter(|response| self.ledger.is_latest(*response)) {
            match &refused {
                Some(reason) => self.ledger.refuse(latest, reason),
                None => self.ledger.accept(latest),
            }
            // Also when it refuses: new names come with whichever request is next.
            self.change_to(&request.resource_names)?;
            return Ok(refused.map_or(Heard::Accepted, Heard::Refused));
        }
        Ok(refused.map_or(Heard::Stale, Heard::Refused))
    }

    fn answer(&mut self, shelf: &Shelf, now: OffsetDateTime) -> Option<Answer<DiscoveryResponse>> {
        let due = self.ledger.due(shelf, now);
        let subscription = self.subscription.as_mut().filter(|_| !due.is_empty())?;
        subscription.answered = true;
        let response = DiscoveryResponse {
            version_info: shelf.label(),
            resources: due
                .iter()
                .map(|(name, secret)| pack(name, secret))
                .collect(),
            type_url: SECRET_TYPE_URL.to_owned(),
            nonce: self.ledger.book(&due),
            ..DiscoveryResponse::default()
        };
        let names = due.into_iter().map(|(name, _)| name).collect();
        Some(Answer { names, response })
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl Session {
    /// Takes over a whole set of names. Those that are new are due; those that stay are not.
    fn change_to(&mut self, names: &[String]) -> Result<(), UnknownName> {
        let mut changed = BTreeMap::new();
        for name in names {
            let name = self.ledger.catalogue.read(name)?;
            let entry = self.ledger.wanted.get(&name).cloned().unwrap_or_default();
            changed.insert(name, entry);
        }
        self.ledger.wanted = changed;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
