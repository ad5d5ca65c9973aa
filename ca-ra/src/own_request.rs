//! A request of our own: for a server that must have a certificate before it can serve anybody.

use std::time::Duration;

use ca_core::{
    CertificateChain, Csr, IssuedChain, KeyKind, PrivateKey, SigningKey as _, SubjectName,
    TrustBundle, create_csr_pem,
};
use time::OffsetDateTime;

use crate::kubernetes::KubernetesSignerError;
use crate::returned::{ReturnedError, accept_server};

/// A new key, and what is asked for it. It needs no screening: nobody else has written it.
#[derive(Debug)]
pub(crate) struct OwnRequest {
    key: PrivateKey,
    csr: Csr,
    names: Vec<SubjectName>,
    lifetime: Duration,
}

impl OwnRequest {
    pub(crate) fn new(
        names: Vec<SubjectName>,
        lifetime: Duration,
    ) -> Result<Self, KubernetesSignerError> {
        let failed =
            |cause: &dyn std::error::Error| KubernetesSignerError::OwnRequest(cause.to_string());
        let key = PrivateKey::generate(KeyKind::EcdsaP256).map_err(|e| failed(&e))?;
        let pem = create_csr_pem(&key, &names).map_err(|e| failed(&e))?;
        let csr = Csr::from_pem(pem.as_bytes()).map_err(|e| failed(&e))?;
        Ok(Self {
            key,
            csr,
            names,
            lifetime,
        })
    }

    pub(crate) fn csr(&self) -> &Csr {
        &self.csr
    }

    /// The key with its certificate, if that is what was asked for.
    pub(crate) fn accept(
        self,
        chain: &CertificateChain,
        roots: &TrustBundle,
        now: OffsetDateTime,
    ) -> Result<(PrivateKey, IssuedChain), ReturnedError> {
        let key = self.key.public_key();
        let issued = accept_server(key, &self.names, self.lifetime, chain, roots, now)?;
        Ok((self.key, issued))
    }
}
