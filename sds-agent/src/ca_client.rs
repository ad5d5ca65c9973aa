//! Asking a certificate authority: the seam, and what every implementation shares.

mod address;
mod connection;
mod istio;

use std::{io, time::Duration};

use ca_core::{BoxFuture, CertificateError, IssuedChain, TrustError};
use tonic::Code;

pub(crate) use address::CaAddress;
pub(crate) use istio::IstioCaClient;

use crate::credential::TokenError;

/// A certificate authority as an agent sees it.
///
/// What comes back is parsed, **not yet judged**: whether it fits the key and the identity is for
/// [`WorkloadSecret`](crate::secrets::WorkloadSecret) to say.
pub(crate) trait CaClient: Send + Sync {
    /// Has a CSR signed. The implementation bounds the time that this may take.
    fn sign(
        &self,
        csr_pem: String,
        lifetime: Duration,
    ) -> BoxFuture<'_, Result<IssuedChain, CaError>>;
}

/// Why there is no certificate. All of these are worth another try later: tokens are replaced, CAs
/// come back, and policies are corrected.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// We have nothing to show.
    #[error(transparent)]
    Credential(#[from] TokenError),
    /// We have nothing to show, and no token was meant to be there.
    #[error("there is no client certificate, and no token file is configured")]
    NoCredential,
    /// What we have to show cannot be shown.
    #[error("the client certificate cannot be used")]
    ClientCertificate(#[source] rustls::Error),
    /// We do not know whom to trust.
    #[error("cannot read the CA's roots from {path}")]
    RootFile {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// We do not know whom to trust.
    #[error("the CA's roots in {path} are not certificates")]
    Roots {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: TrustError,
    },
    /// Nobody is there.
    #[error("cannot connect to the CA at {address}")]
    Connect {
        /// Who should be there.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody is there, but not the CA that we trust, or it does not speak our protocol.
    #[error("cannot set up TLS with the CA at {address}")]
    Tls {
        /// Who should be there.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The connection is unusable.
    #[error("cannot speak HTTP/2 with the CA at {address}")]
    Http {
        /// Who should be there.
        address: String,
        /// Why not.
        #[source]
        source: hyper::Error,
    },
    /// The CA took too long.
    #[error("no answer from the CA at {address} within {} s", .limit.as_secs())]
    TimedOut {
        /// Who was asked.
        address: String,
        /// For how long.
        limit: Duration,
    },
    /// The CA said no.
    #[error("the CA at {address} refused: {code}: {message}", code = code_name(*.code))]
    Refused {
        /// Who was asked.
        address: String,
        /// The gRPC status.
        code: Code,
        /// What it says.
        message: String,
    },
    /// An answer without roots.
    #[error(
        "the CA's answer has {0} elements, and at least two are needed: the certificate and the roots"
    )]
    TooFewElements(usize),
    /// An answer that does not parse.
    #[error("element {index} of the CA's answer is not a certificate")]
    Element {
        /// Which one, from 0.
        index: usize,
        /// Why not.
        #[source]
        source: CertificateError,
    },
    /// More than one certificate where one belongs.
    #[error("element {0} of the CA's answer holds more than one certificate")]
    ElementTooLong(usize),
    /// An answer without usable roots.
    #[error("the last element of the CA's answer does not hold roots")]
    AnswerRoots(#[source] TrustError),
}

impl CaError {
    /// Whether it may well be over in a moment, so that a few quick tries are worth their while before
    /// waiting in earnest. The codes are those that Istio's agent tries again on.
    fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Http { .. } => true,
            Self::Refused { code, .. } => matches!(
                code,
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
                    | Code::Aborted
                    | Code::Internal
                    | Code::Unavailable
            ),
            _ => false,
        }
    }
}

/// As gRPC writes it: `Unauthenticated`, `InvalidArgument`.
fn code_name(code: Code) -> String {
    format!("{code:?}")
}
