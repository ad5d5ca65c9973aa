//! One incremental stream as a state machine. As [`Session`](super::session::Session), but clients
//! say what changes about their wishes, each secret has a version of its own, and what does not exist
//! is said to be so instead of ending the stream.

use std::collections::BTreeSet;

use ca_proto::{
    SECRET_TYPE_URL,
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
};
use time::OffsetDateTime;

use super::{
    ledger::{Answer, BadRequest, Entry, Heard, Ledger},
    resource::pack,
    stream::Protocol,
};
use crate::secrets::{Catalogue, Secret, SecretName, Shelf, UnknownName};

/// The state of one stream.
#[derive(Debug)]
pub(super) struct DeltaSession {
    ledger: Ledger,
    /// Names that were asked for and stand for nothing, which the client has not been told yet.
    ///
    /// A secret that is merely not there yet, or no more, is **not** among them: told so, Envoy would
    /// drop what it has, and what it has may still be good.
    nothing: BTreeSet<String>,
    /// Whether a request has been heard. Only the first may say what the client has.
    begun: bool,
}

impl Protocol for DeltaSession {
    const NAME: &'static str = "incremental";

    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn new(stream: u64, catalogue: Catalogue) -> Self {
        Self {
            ledger: Ledger::new(stream, catalogue),
            nothing: BTreeSet::new(),
            begun: false,
        }
    }

    fn hear(&mut self, request: &DeltaDiscoveryRequest) -> Result<Heard, BadRequest> {
        if !self
            .ledger
            .admit(request.node.as_ref(), &request.type_url)?
        {
            return Ok(Heard::Health);
        }
        let verdict = self.take_verdict(request);
        // Wishes are heeded whatever the request answers: they are said once and not repeated.
        let first = !std::mem::replace(&mut self.begun, true);
        for name in &request.resource_names_unsubscribe {
            self.nothing.remove(name);
            if let Ok(name) = self.ledger.catalogue.read(name) {
                self.ledger.wanted.remove(&name);
            }
        }
        for name in &request.resource_names_subscribe {
            match self.ledger.catalogue.read(name) {
                Ok(known) => {
                    // Asked for again, it is sent again.
                    let held = request.initial_resource_versions.get(name);
                    let entry = held.filter(|_| first).map(|version| Entry::held(version));
                    self.ledger.wanted.insert(known, entry.unwrap_or_default());
                }
                Err(UnknownName(name)) => {
                    tracing::warn!(name, "a client asked for a secret that does not exist");
                    self.nothing.insert(name);
                }
            }
        }
        Ok(match verdict {
            Some(Heard::Refused(reason)) => Heard::Refused(reason),
            _ if !request.resource_names_subscribe.is_empty() => Heard::Subscribed,
            _ if !request.resource_names_unsubscribe.is_empty() => Heard::Unsubscribed,
            other => other.unwrap_or(Heard::Unsubscribed),
        })
    }

    fn answer(
        &mut self,
        shelf: &Shelf,
        now: OffsetDateTime,
    ) -> Option<Answer<DeltaDiscoveryResponse>> {
        let due = self.ledger.due(shelf, now);
        if due.is_empty() && self.nothing.is_empty() {
            return None;
        }
        let response = DeltaDiscoveryResponse {
            system_version_info: shelf.label(),
            resources: due
                .iter()
                .map(|(name, secret)| resource(name, secret))
                .collect(),
            type_url: SECRET_TYPE_URL.to_owned(),
            nonce: self.ledger.book(&due),
            removed_resources: std::mem::take(&mut self.nothing).into_iter().collect(),
            ..DeltaDiscoveryResponse::default()
        };
        let names = due.into_iter().map(|(name, _)| name).collect();
        Some(Answer { names, response })
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl DeltaSession {
    /// What the request says about a response, if it is about one.
    fn take_verdict(&mut self, request: &DeltaDiscoveryRequest) -> Option<Heard> {
        let response = self.ledger.response(&request.response_nonce);
        if let Some(status) = &request.error_detail {
            if let Some(response) = response {
                self.ledger.refuse(response, &status.message);
            }
            return Some(Heard::Refused(status.message.clone()));
        }
        if request.response_nonce.is_empty() {
            return None;
        }
        Some(response.map_or(Heard::Stale, |response| {
            self.ledger.accept(response);
            Heard::Accepted
        }))
    }
}

fn resource(name: &SecretName, secret: &Secret) -> Resource {
    Resource {
        name: name.to_string(),
        version: secret.version().to_string(),
        resource: Some(pack(name, secret)),
        ..Resource::default()
    }
}

#[cfg(test)]
mod tests;
