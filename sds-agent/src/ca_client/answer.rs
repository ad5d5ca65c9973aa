//! What CAs answer over HTTP: JSON with certificates in it, in more or less any order.

use ca_core::{
    Certificate, CertificateChain, CertificateError, IssuedChain, TrustBundle, TrustError,
    crypto::RING,
};
use serde_json::Value;

use crate::transport::JsonFault;

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFault {
    /// Not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] JsonFault),
    /// Not a certificate.
    #[error("{0} is not a certificate")]
    Certificate(&'static str, #[source] CertificateError),
    /// More than one where one belongs.
    #[error("{0} holds more than one certificate")]
    TooMany(&'static str),
    /// A heap that is made to be searched for ever.
    #[error("it has more than {MOST_CERTIFICATES} certificates")]
    TooLong,
    /// Peers could not be given anything to trust. It is not for us to guess that the uppermost one is to be trusted.
    #[error(
        "none of its certificates is a root; the CA must know the root above its own certificate"
    )]
    NoRoot(#[source] TrustError),
}

/// Far more than a chain and all roots have.
const MOST_CERTIFICATES: usize = 64;

/// Certificates as they come, from which a chain is to be made.
#[derive(Default)]
pub(super) struct Certificates(Vec<Certificate>);

impl Certificates {
    /// Adds all that are in a text.
    pub(super) fn add(&mut self, what: &'static str, pem: &str) -> Result<(), AnswerFault> {
        let found = Certificate::all_from_pem(pem.as_bytes());
        self.0
            .extend(found.map_err(|cause| AnswerFault::Certificate(what, cause))?);
        if self.0.len() > MOST_CERTIFICATES {
            return Err(AnswerFault::TooLong);
        }
        Ok(())
    }

    /// Adds all in a list of texts, which may be missing.
    pub(super) fn add_list(
        &mut self,
        what: &'static str,
        list: Option<&Value>,
    ) -> Result<(), AnswerFault> {
        let texts = match list {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Array(texts)) => texts,
            Some(_) => return Err(JsonFault::Missing(what).into()),
        };
        for text in texts {
            self.add(what, text.as_str().ok_or(JsonFault::Missing(what))?)?;
        }
        Ok(())
    }

    /// The certificate in `pem`, with the path that leads up from it, and all that issued themselves as roots.
    pub(super) fn chain_of(
        self,
        what: &'static str,
        pem: &str,
    ) -> Result<IssuedChain, AnswerFault> {
        let mut leaf = Certificate::all_from_pem(pem.as_bytes())
            .map_err(|cause| AnswerFault::Certificate(what, cause))?;
        let leaf = match leaf.pop() {
            Some(only) if leaf.is_empty() => only,
            _ => return Err(AnswerFault::TooMany(what)),
        };
        let own = |certificate: &&Certificate| certificate.is_ca() && certificate.is_self_issued();
        let roots = TrustBundle::new(self.0.iter().filter(own).cloned());
        let roots = roots.map_err(AnswerFault::NoRoot)?;
        let chain = CertificateChain::ordered(leaf, &self.0, &roots, &RING);
        Ok(IssuedChain::new(chain, roots))
    }
}
