//! A request for the certificate of a CA below this one: the steps are those of any other request.

use std::time::Instant;

use ca_auth::AuthorityGrant;
use ca_core::crypto::AWS_LC_RS;
use ca_core::{Csr, IssuedChain, SignError};
use time::OffsetDateTime;

use super::Service;
use crate::admission::Priority;
use crate::evidence::Wish;
use crate::status::IssueError;
use crate::telemetry::{Step, Trace};

impl Service {
    /// Only an explicit wish leads here; what a CSR says of itself counts for nothing.
    pub(super) async fn certify_authority(
        &self,
        grant: &AuthorityGrant,
        wish: Wish,
        priority: Priority,
        now: OffsetDateTime,
        trace: &Trace,
    ) -> Result<IssuedChain, IssueError> {
        let pem = wish.csr_pem;
        let (step, queued) = (trace.step(Step::Queue), Instant::now());
        let check = move || {
            let (waited, started) = (queued.elapsed(), Instant::now());
            let csr = Csr::from_pem_with(pem.as_bytes(), &AWS_LC_RS);
            (waited, started.elapsed(), csr)
        };
        let who = grant.caller().identities.as_slice()[0].as_str();
        let (waited, checked, csr) = self.admission.run(priority, who, check).await?;
        step.was_followed_by(waited, Step::Check, checked);
        let csr = csr?;
        grant.check_key(csr.public_key().kind())?;
        let lifetime = grant.lifetime(self.ttl.resolve(wish.ttl)?);
        let _step = trace.step(Step::Sign);
        let subordinates = self.subordinates.as_ref().ok_or_else(no_ca)?;
        Ok(subordinates.certify(csr, grant, lifetime, now).await?)
    }
}

/// In the words of Istio's registration authority.
fn no_ca() -> SignError {
    SignError::Refused("unable to generate CA certificates".into())
}
