//! A server that has nothing to sign with yet, as far as it can be asked how it is.

use ca_core::TrustDomain;
use time::OffsetDateTime;

use super::{certified, last_failure};
use crate::authority::upstream::{Situation, UpstreamHandle};
use crate::report::{CaReport, Readiness, Report, RequestsReport, WaitingReport, shown};

/// What is known while a certificate, a signer or a Secret is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// And since when it waits: nothing comes before that but opening files and sockets.
    pub(crate) started: OffsetDateTime,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) kind: &'static str,
    pub(crate) situation: Situation,
    /// Where another CA is to certify this one: it takes orders already.
    pub(crate) upstream: Option<UpstreamHandle>,
}

impl Waiting {
    /// Not ready, for one reason.
    pub(crate) fn readiness(&self) -> Readiness {
        let failure = self.situation.failure();
        let note = failure.map(|(at, why)| format!("{why} at {}", shown(at)));
        Readiness {
            ready: false,
            missing: vec![self.situation.wanted().to_owned()],
            notes: note.into_iter().collect(),
        }
    }

    /// Nobody can have asked for anything: the listener for requests is closed.
    pub(crate) fn report(&self, now: OffsetDateTime) -> Report {
        Report {
            version: env!("CARGO_PKG_VERSION").into(),
            time: shown(now),
            started: shown(self.started),
            trust_domain: self.trust_domain.to_string(),
            readiness: self.readiness(),
            waiting: Some(WaitingReport {
                wanted: self.situation.wanted().to_owned(),
                since: shown(self.started),
                last_failure: last_failure(&self.situation),
            }),
            ca: CaReport {
                kind: self.kind.into(),
                generation: None,
                signing_certificate: None,
                chain: Vec::new(),
                roots: Vec::new(),
                rotation: None,
                registration: None,
                upstream: self
                    .upstream
                    .as_ref()
                    .map(|upstream| certified(&upstream.situation)),
                files: None,
            },
            cluster: None,
            serving_certificates: Vec::new(),
            authenticators: Vec::new(),
            caller_clusters: Vec::new(),
            remote_clusters: Vec::new(),
            policy: None,
            requests: RequestsReport::default(),
            audit: None,
            refusals: Vec::new(),
        }
    }
}
