//! A request for the certificate of a CA below this one: the steps are those of any other request.

use ca_auth::{AuthorityGrant, Evidence};
use ca_core::crypto::AWS_LC_RS;
use ca_core::{CertificateChain, Csr, IssuedChain};
use time::OffsetDateTime;

use super::{Outcome, Service};
use crate::admission::Priority;
use crate::evidence::Wish;
use crate::status::IssueError;

impl Service {
    /// Only an explicit wish leads here; what a CSR says of itself counts for nothing.
    pub(super) async fn issue_authority(
        &self,
        evidence: &Evidence,
        wish: Wish,
        now: OffsetDateTime,
    ) -> Outcome {
        let authenticated = self.authenticators.authenticate(evidence, now).await;
        let caller = authenticated.as_ref().ok().cloned();
        let grant = authenticated.map_err(IssueError::from).and_then(|caller| {
            let on_behalf_of = wish.on_behalf_of.as_deref();
            Ok(self.authorizer.authorize_authority(caller, on_behalf_of)?)
        });
        match grant {
            Ok(grant) => {
                let shown = evidence.client_chain().map(CertificateChain::leaf);
                let priority = Priority::of(grant.caller(), shown, now);
                let rules = grant.rules().into();
                Outcome {
                    caller,
                    rules,
                    result: self.certify_authority(&grant, wish, priority, now).await,
                }
            }
            Err(error) => Outcome {
                caller,
                rules: Box::default(),
                result: Err(error),
            },
        }
    }

    async fn certify_authority(
        &self,
        grant: &AuthorityGrant,
        wish: Wish,
        priority: Priority,
        now: OffsetDateTime,
    ) -> Result<IssuedChain, IssueError> {
        let pem = wish.csr_pem;
        let check = move || Csr::from_pem_with(pem.as_bytes(), &AWS_LC_RS);
        let who = grant.caller().identities.as_slice()[0].as_str();
        let csr = self.admission.run(priority, who, check).await??;
        grant.check_key(csr.public_key().kind())?;
        let lifetime = grant.lifetime(self.ttl.resolve(wish.ttl)?);
        Ok(self.subordinates.certify(csr, grant, lifetime, now).await?)
    }
}
