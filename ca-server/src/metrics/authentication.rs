//! How each authenticator judges.

use std::time::Duration;

use ca_auth::{AuthnError, Caller};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::PlainCounter;
use crate::authentication::Witness;

/// Its verdicts, and how long it takes for them. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Verdicts {
    count: Family<VerdictLabels, PlainCounter>,
    seconds: Family<AuthenticatorLabel, Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    authenticator: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AuthenticatorLabel {
    authenticator: &'static str,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self {
            count: Family::default(),
            // From 10 µs, less than a signature takes to verify, to 2.6 s: an issuer that must be asked.
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_01, 4.0, 10))
            }),
        }
    }
}

impl Verdicts {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "mesh_ca_authentication_count",
            "Verdicts of each authenticator",
            self.count.clone(),
        );
        registry.register(
            "mesh_ca_authentication_seconds",
            "How long each authenticator takes for a verdict",
            self.seconds.clone(),
        );
    }
}

impl Witness for Verdicts {
    fn verdict(
        &self,
        authenticator: &'static str,
        verdict: &Result<Caller, AuthnError>,
        took: Duration,
    ) {
        let outcome = match verdict {
            Ok(_) => "vouched",
            Err(AuthnError::NotPresented) => "not_presented",
            Err(AuthnError::AnotherIssuer(_)) => "another_issuer",
            Err(AuthnError::Rejected(_)) => "rejected",
            Err(AuthnError::CouldNotAsk(_)) => "could_not_ask",
        };
        let labels = VerdictLabels {
            authenticator,
            outcome,
        };
        self.count.get_or_create(&labels).0.inc();
        // Who was not asked anything would drown those who were.
        if !matches!(outcome, "not_presented" | "another_issuer") {
            let label = AuthenticatorLabel { authenticator };
            self.seconds
                .get_or_create(&label)
                .observe(took.as_secs_f64());
        }
    }
}
