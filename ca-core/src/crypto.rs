//! Which library does the arithmetic: a value that is passed, not a build option that changes behaviour.

use std::fmt;

use pki_types::SignatureVerificationAlgorithm;
use zeroize::Zeroizing;

use crate::key::{KeyError, KeyKind, KeyParts};

#[cfg(feature = "aws-lc-rs")]
mod aws_lc_rs;
mod ring;

#[cfg(feature = "aws-lc-rs")]
pub use self::aws_lc_rs::AWS_LC_RS;
pub use self::ring::RING;

/// A cryptographic library: it checks signatures, loads private keys and makes them.
///
/// [`RING`] is always there and is what the short forms ([`crate::Csr::from_pem`], [`crate::PrivateKey::generate`]) use.
/// `AWS_LC_RS` comes with the feature of that name: equal at P-256 and Ed25519, four to five times faster at P-384,
/// and able to make RSA keys.
pub struct Backend {
    pub(crate) name: &'static str,
    pub(crate) verifiers: &'static [&'static dyn SignatureVerificationAlgorithm],
    pub(crate) load: fn(&KeyParts<'_>) -> Result<LoadedKey, KeyError>,
    pub(crate) generate: fn(KeyKind) -> Result<Zeroizing<Vec<u8>>, KeyError>,
}

impl Backend {
    /// The name of the library.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.name)
    }
}

/// What a backend makes of a private key.
pub(crate) struct LoadedKey {
    pub(crate) sign: Box<SignFn>,
    /// The public half as the library computed it, so that a key file cannot lie about it.
    pub(crate) public: Vec<u8>,
}

pub(crate) type SignFn = dyn Fn(&[u8]) -> Result<Vec<u8>, KeyError> + Send + Sync;
