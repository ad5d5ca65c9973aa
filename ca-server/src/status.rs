//! From an outcome to what the wire is told: the only place that does this.

use ca_auth::{AuthzError, KeyRefused, Refusal};
use ca_core::{CsrError, SignError, TtlError};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::addresses::AddressIsFull;
use crate::admission::{NotDone, RETRY_AFTER};
use crate::audit::AuditError;

/// Why a request got no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    #[error(transparent)]
    Authentication(#[from] Refusal),
    #[error(transparent)]
    Authorization(#[from] AuthzError),
    #[error(transparent)]
    Csr(#[from] CsrError),
    #[error(transparent)]
    Key(#[from] KeyRefused),
    #[error(transparent)]
    Ttl(#[from] TtlError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Address(#[from] AddressIsFull),
    #[error(transparent)]
    NotDone(#[from] NotDone),
    #[error(transparent)]
    Audit(AuditError),
}

/// How a refusal is counted; the texts of four of them are Istio's `error` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refused {
    Authentication,
    Csr,
    Ttl,
    NotReady,
    CertificateGeneration,
    /// One address has too much under way.
    Address,
    /// Too much is under way in all.
    Overload,
}

impl IssueError {
    pub(crate) fn refused(&self) -> Refused {
        match self {
            Self::Authentication(_) | Self::Authorization(_) => Refused::Authentication,
            Self::Csr(_) | Self::Key(_) | Self::Sign(SignError::Refused(_)) => Refused::Csr,
            Self::Ttl(_) => Refused::Ttl,
            Self::Address(_) => Refused::Address,
            Self::NotDone(NotDone::TurnedAway) => Refused::Overload,
            Self::Sign(SignError::NotReady) => Refused::NotReady,
            Self::Sign(_) | Self::Audit(_) | Self::NotDone(NotDone::Panicked) => {
                Refused::CertificateGeneration
            }
        }
    }

    /// Codes and sentences are Istio's, with two exceptions: who could not be judged because somebody else did not
    /// answer, and who could not be served yet, is told `Unavailable`, so that it tries again.
    pub(crate) fn to_status(&self) -> Status {
        let (code, message) = match self {
            // What failed is for the log: the caller may be an attacker who is guessing.
            Self::Authentication(refusal) => {
                let code = if refusal.is_retryable() {
                    Code::Unavailable
                } else {
                    Code::Unauthenticated
                };
                (code, "request authenticate failure".to_owned())
            }
            Self::Authorization(AuthzError::NotAnAuthority { .. }) => (
                Code::PermissionDenied,
                "request for the certificate of a CA is not permitted".to_owned(),
            ),
            Self::Authorization(error) => {
                let code = if error.is_retryable() {
                    Code::Unavailable
                } else {
                    Code::Unauthenticated
                };
                let message = "request impersonation authentication failure";
                (code, message.to_owned())
            }
            Self::Csr(error) => (Code::InvalidArgument, signing_error(error)),
            // It has the name, and so may know what its key should be.
            Self::Key(error) => (Code::InvalidArgument, signing_error(error)),
            Self::Ttl(error) => (Code::InvalidArgument, signing_error(error)),
            // Who else was asked, and what they said, is not the caller's business.
            Self::Sign(SignError::Unavailable(_)) => (
                Code::Unavailable,
                "CSR signing error (the signer is not available)".to_owned(),
            ),
            Self::Sign(SignError::Declined(_)) => (
                Code::Internal,
                "CSR signing error (the signer has declined)".to_owned(),
            ),
            Self::Sign(SignError::BadAnswer(_)) => (
                Code::Internal,
                "CSR signing error (the signer sent what was not asked for)".to_owned(),
            ),
            Self::Sign(error) => (sign_code(error), signing_error(error)),
            // What agents of Istio try again after, by themselves.
            Self::Address(_) => (Code::ResourceExhausted, AddressIsFull::TOLD.to_owned()),
            Self::NotDone(error @ NotDone::TurnedAway) => {
                (Code::ResourceExhausted, error.to_string())
            }
            // Neither is the caller's business, and both may be over when it tries again.
            Self::Audit(_) => (Code::Unavailable, "request cannot be recorded".to_owned()),
            Self::NotDone(NotDone::Panicked) => (Code::Internal, "internal error".to_owned()),
        };
        let mut status = Status::new(code, message);
        if status.code() == Code::ResourceExhausted {
            let pushback =
                MetadataValue::from(u64::try_from(RETRY_AFTER.as_millis()).unwrap_or(u64::MAX));
            status
                .metadata_mut()
                .insert("grpc-retry-pushback-ms", pushback);
        }
        status
    }
}

fn sign_code(error: &SignError) -> Code {
    match error {
        SignError::Refused(_) => Code::InvalidArgument,
        error if error.is_retryable() => Code::Unavailable,
        _ => Code::Internal,
    }
}

fn signing_error(error: &dyn std::error::Error) -> String {
    format!("CSR signing error ({error})")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use ca_auth::{Authenticators, Evidence, Transport};
    use ca_core::testing::now;
    use ca_core::{Csr, TtlPolicy};

    use super::*;
    use crate::addresses::Addresses;

    #[test]
    fn every_refusal_has_istios_code_and_sentence() {
        let csr = |pem: &[u8]| IssueError::from(Csr::from_pem(pem).unwrap_err());
        let hours = |h: u64| Duration::from_secs(h * 3600);
        let ttl = TtlPolicy::new(hours(1), hours(2), ca_core::OverMax::Reject)
            .unwrap()
            .resolve(Some(hours(3)));
        let at = now();
        let unsupported = ca_core::PublicKeyError::Unsupported;
        let key = ca_core::KeyError::Rejected("no such object".into());
        let cases = [
            (
                csr(b"junk"),
                Refused::Csr,
                Code::InvalidArgument,
                "CSR signing error (certificate signing request is not properly encoded)",
            ),
            (
                csr(b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"),
                Refused::Csr,
                Code::InvalidArgument,
                "CSR signing error (failed to parse X.509 certificate signing request)",
            ),
            (
                CsrError::PublicKey(unsupported).into(),
                Refused::Csr,
                Code::InvalidArgument,
                "CSR signing error (unsupported public key (accepted: RSA, ECDSA P-256 and P-384, Ed25519))",
            ),
            (
                ttl.unwrap_err().into(),
                Refused::Ttl,
                Code::InvalidArgument,
                "CSR signing error (requested TTL 3h0m0s is greater than the max allowed TTL 2h0m0s)",
            ),
            (
                SignError::NotReady.into(),
                Refused::NotReady,
                Code::Unavailable,
                "CSR signing error (Istio CA is not ready)",
            ),
            (
                SignError::Expired { at }.into(),
                Refused::CertificateGeneration,
                Code::Internal,
                &format!("CSR signing error (signing certificate has expired at {at})"),
            ),
            (
                SignError::Key(key).into(),
                Refused::CertificateGeneration,
                Code::Internal,
                "CSR signing error (private key rejected: no such object)",
            ),
            (
                AuthzError::NotAnIdentity(ca_core::IdentityError::Scheme).into(),
                Refused::Authentication,
                Code::Unauthenticated,
                "request impersonation authentication failure",
            ),
            (
                NotDone::TurnedAway.into(),
                Refused::Overload,
                Code::ResourceExhausted,
                "too many requests are waiting",
            ),
            (
                full_address(),
                Refused::Address,
                Code::ResourceExhausted,
                "too many requests from this address are under way",
            ),
            (
                NotDone::Panicked.into(),
                Refused::CertificateGeneration,
                Code::Internal,
                "internal error",
            ),
            (
                SignError::Refused("unable to validate SAN Identities in CSR: asks for no name".into()).into(),
                Refused::Csr,
                Code::InvalidArgument,
                "CSR signing error (unable to validate SAN Identities in CSR: asks for no name)",
            ),
            (
                SignError::Unavailable("upstream 10.0.0.1 said: secret".into()).into(),
                Refused::CertificateGeneration,
                Code::Unavailable,
                "CSR signing error (the signer is not available)",
            ),
            (
                SignError::Declined("certificate request istio-csr-x was denied: no".into()).into(),
                Refused::CertificateGeneration,
                Code::Internal,
                "CSR signing error (the signer has declined)",
            ),
            (
                SignError::BadAnswer("a leaf for somebody else".into()).into(),
                Refused::CertificateGeneration,
                Code::Internal,
                "CSR signing error (the signer sent what was not asked for)",
            ),
            (
                nobody_is_a_ca().into(),
                Refused::Authentication,
                Code::PermissionDenied,
                "request for the certificate of a CA is not permitted",
            ),
        ];
        for (error, refused, code, message) in cases {
            let status = error.to_status();
            assert_eq!(
                (error.refused(), status.code(), status.message()),
                (refused, code, message),
                "{error:?}"
            );
        }
    }

    fn full_address() -> IssueError {
        let addresses = Addresses::limited_to(Some(NonZeroUsize::MIN));
        let here = Some([127, 0, 0, 1].into());
        let _place = addresses.enter(here).unwrap();
        addresses.enter(here).unwrap_err().into()
    }

    fn nobody_is_a_ca() -> AuthzError {
        let name: ca_core::SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let source = ca_auth::Source::Token { issuer: None };
        let caller = ca_auth::Caller::new("test", source, name.into(), now());
        let authorizer = ca_auth::Authorizer::own_names();
        authorizer.authorize_authority(caller, None).unwrap_err()
    }

    #[test]
    fn who_is_turned_away_learns_when_to_come_back() {
        for error in [NotDone::TurnedAway.into(), full_address()] {
            let status = error.to_status();
            assert_eq!(
                status.metadata().get("grpc-retry-pushback-ms").unwrap(),
                "200"
            );
        }
    }

    #[tokio::test]
    async fn the_wire_is_not_told_why_nobody_vouches() {
        let evidence = Evidence::new(Transport::Tls { client_chain: None });
        let refusal = Authenticators::new(Vec::new())
            .authenticate(&evidence, now())
            .await
            .unwrap_err();
        let error = IssueError::from(refusal);
        assert_eq!(error.refused(), Refused::Authentication);
        assert_eq!(error.to_status().message(), "request authenticate failure");
        assert_eq!(error.to_status().code(), Code::Unauthenticated);
    }
}
