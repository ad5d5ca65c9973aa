//! Callers that show a service account token of a cluster we know.

use std::sync::Arc;

use ca_core::BoxFuture;
use time::OffsetDateTime;

use super::cluster::NAME;
use super::clusters::Clusters;
use crate::authenticator::{Authenticator, AuthenticatorStatus, AuthnError};
use crate::caller::Caller;
use crate::evidence::Evidence;

/// Accepts the tokens of service accounts, each judged by the cluster that its bearer says it is in.
#[derive(Clone, Debug)]
pub struct KubernetesAuthenticator {
    clusters: Arc<Clusters>,
}

impl KubernetesAuthenticator {
    /// Believes the tokens of these clusters.
    pub fn new(clusters: Arc<Clusters>) -> Self {
        Self { clusters }
    }
}

impl Authenticator for KubernetesAuthenticator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn authenticate<'a>(
        &'a self,
        evidence: &'a Evidence,
        now: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Caller, AuthnError>> {
        Box::pin(async move {
            let token = evidence.bearer_token().ok_or(AuthnError::NotPresented)?;
            let cluster = self.clusters.find(evidence.cluster());
            let cluster = cluster.map_err(|error| AuthnError::Rejected(error.into()))?;
            cluster.judge(token.secret(), now).await
        })
    }

    fn status(&self) -> AuthenticatorStatus {
        let mut status = AuthenticatorStatus::new(NAME);
        let local = self.clusters.local().status();
        status.issuer = local.issuer;
        status.keys = local.keys;
        status
    }
}
