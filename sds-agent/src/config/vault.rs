//! Paths of Vault.

use std::{fmt, str::FromStr};

/// A path below `/v1/`: parts of letters, digits, `-`, `_` and `.`, at least three of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VaultPath(String);

impl VaultPath {
    /// Without a slash at either end.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VaultPath {
    type Err = VaultPathError;

    fn from_str(text: &str) -> Result<Self, VaultPathError> {
        let bare = text.trim_matches('/');
        let bare = bare.strip_prefix("v1/").unwrap_or(bare);
        let is_part = |part: &str| {
            let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
        };
        if bare.split('/').count() < 3 || !bare.split('/').all(is_part) {
            return Err(VaultPathError(text.to_owned()));
        }
        Ok(Self(bare.to_owned()))
    }
}

impl fmt::Display for VaultPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a path of Vault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a path such as pki/sign/<role> or auth/kubernetes/login")]
pub struct VaultPathError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_with_and_without_what_stands_around_them() {
        for text in ["pki/sign/mesh", "/v1/pki/sign/mesh", "v1/pki/sign/mesh/"] {
            assert_eq!(text.parse::<VaultPath>().unwrap().as_str(), "pki/sign/mesh");
        }
        for text in [
            "",
            "pki",
            "pki/sign",
            "pki//sign/mesh",
            "pki/sign/../x",
            "pki/sign/a?b",
            "pki/sign/a b",
        ] {
            assert!(text.parse::<VaultPath>().is_err(), "{text}");
        }
    }
}
