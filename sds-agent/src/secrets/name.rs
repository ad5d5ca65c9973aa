//! What clients call secrets.

use std::{fmt, str::FromStr};

/// A name that can be subscribed to. Ordered as it should be pushed: when a root changes, a proxy
/// should trust the new one before it shows a certificate of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SecretName {
    /// `ROOTCA`: whom the workload trusts.
    Roots,
    /// `default`: key and certificate of the workload.
    KeyPair,
}

impl SecretName {
    /// The kind of name, for counting: there are few of these, whatever clients ask for.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Roots => ROOTS,
            Self::KeyPair => KEY_PAIR,
        }
    }
}

impl FromStr for SecretName {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            ROOTS => Ok(Self::Roots),
            KEY_PAIR => Ok(Self::KeyPair),
            _ => Err(UnknownName(name.to_owned())),
        }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

const ROOTS: &str = "ROOTCA";
const KEY_PAIR: &str = "default";

/// A name that stands for nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no secret {0:?}; known are \"default\" and \"ROOTCA\"")]
pub(crate) struct UnknownName(pub(crate) String);
