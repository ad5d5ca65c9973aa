//! Why a request got no certificate.

use std::fmt;

/// By what a client can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Failure {
    /// The server answered with this gRPC code.
    Code(u8),
    /// No answer in time: the client gave up.
    Deadline,
    /// No TCP connection.
    Connect,
    /// No TLS handshake.
    Handshake,
    /// The connection or the stream ended before the answer.
    Connection,
    /// The answer is not one.
    Malformed,
}

impl Failure {
    /// Whether an agent would try again: the CA is busy or not there, but not of another opinion.
    pub(crate) fn is_retryable(self) -> bool {
        match self {
            Self::Code(code) => matches!(code, RESOURCE_EXHAUSTED | UNAVAILABLE),
            Self::Connect | Self::Handshake | Self::Connection => true,
            Self::Deadline | Self::Malformed => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => {
                f.write_str(NAMES.get(usize::from(*code)).unwrap_or(&"unknown code"))
            }
            Self::Deadline => f.write_str("no answer in time"),
            Self::Connect => f.write_str("no TCP connection"),
            Self::Handshake => f.write_str("no TLS handshake"),
            Self::Connection => f.write_str("connection lost"),
            Self::Malformed => f.write_str("malformed answer"),
        }
    }
}

impl From<h2::Error> for Failure {
    fn from(_: h2::Error) -> Self {
        Self::Connection
    }
}

const RESOURCE_EXHAUSTED: u8 = 8;
const UNAVAILABLE: u8 = 14;

/// In the order of their numbers.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
