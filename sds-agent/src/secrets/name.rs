//! What clients call secrets.

use std::{fmt, str::FromStr, sync::Arc};

#[cfg(feature = "gateway")]
use super::CredentialName;

/// A name that can be subscribed to. Ordered as it should be pushed: when a root changes, a proxy
/// should trust the new one before it shows a certificate of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SecretName {
    /// `ROOTCA`: whom the workload trusts.
    Roots,
    /// `file-root:<path>`: roots that somebody else keeps in a file.
    FileRoots(Arc<str>),
    /// `file-root:system`: the roots that came with the operating system.
    SystemRoots,
    /// The CA that goes with a credential of a gateway.
    #[cfg(feature = "gateway")]
    CredentialRoots(CredentialName),
    /// `default`: key and certificate of the workload.
    KeyPair,
    /// `file-cert:<certificate>~<key>`: a pair that somebody else keeps in files.
    FilePair {
        /// The path of the certificate and its intermediates.
        certificate: Arc<str>,
        /// The path of the key.
        key: Arc<str>,
    },
    /// A credential of a gateway: certificate and key.
    #[cfg(feature = "gateway")]
    Credential(CredentialName),
}

/// Which names stand for something here, beside those that always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalogue {
    /// Names of credentials that a gateway shows.
    #[cfg(feature = "gateway")]
    pub(crate) credentials: bool,
}

impl Catalogue {
    /// What a client means by `name`.
    ///
    /// # Errors
    ///
    /// When the name stands for nothing here.
    pub(crate) fn read(self, name: &str) -> Result<SecretName, UnknownName> {
        let known = name.parse();
        #[cfg(feature = "gateway")]
        if known.is_err() && self.credentials {
            return CredentialName::read(name).ok_or_else(|| UnknownName(name.to_owned()));
        }
        known
    }
}

impl SecretName {
    /// The kind of name, for counting: there are few of these, whatever clients ask for.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Roots => ROOTS,
            Self::FileRoots(_) | Self::SystemRoots => "file-root",
            #[cfg(feature = "gateway")]
            Self::CredentialRoots(_) => "credential-cacert",
            #[cfg(feature = "gateway")]
            Self::Credential(_) => "credential",
            Self::KeyPair => KEY_PAIR,
            Self::FilePair { .. } => "file-cert",
        }
    }

    /// Whether it is one of the workload's own: the others are had from elsewhere, and only while somebody wants them.
    pub(crate) fn is_of_the_workload(&self) -> bool {
        matches!(self, Self::Roots | Self::KeyPair)
    }

    /// Whether the mesh's revocation lists go along with it. A gateway's credentials bring their own, if any.
    pub(super) fn takes_revocation_lists(&self) -> bool {
        matches!(self, Self::Roots | Self::FileRoots(_) | Self::SystemRoots)
    }
}

impl FromStr for SecretName {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let unknown = || UnknownName(name.to_owned());
        let path = |text: &str| {
            let one = !text.is_empty() && !text.contains(BETWEEN_PATHS);
            one.then(|| Arc::from(text)).ok_or_else(unknown)
        };
        if let Some(paths) = name.strip_prefix(FILE_PAIR) {
            let (certificate, key) = paths.split_once(BETWEEN_PATHS).ok_or_else(unknown)?;
            return Ok(Self::FilePair {
                certificate: path(certificate)?,
                key: path(key)?,
            });
        }
        match name.strip_prefix(FILE_ROOTS) {
            Some(SYSTEM) => Ok(Self::SystemRoots),
            Some(roots) => Ok(Self::FileRoots(path(roots)?)),
            None if name == ROOTS => Ok(Self::Roots),
            None if name == KEY_PAIR => Ok(Self::KeyPair),
            None => Err(unknown()),
        }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Roots => f.write_str(ROOTS),
            Self::FileRoots(path) => write!(f, "{FILE_ROOTS}{path}"),
            Self::SystemRoots => write!(f, "{FILE_ROOTS}{SYSTEM}"),
            Self::KeyPair => f.write_str(KEY_PAIR),
            Self::FilePair { certificate, key } => {
                write!(f, "{FILE_PAIR}{certificate}{BETWEEN_PATHS}{key}")
            }
            #[cfg(feature = "gateway")]
            Self::CredentialRoots(name) | Self::Credential(name) => name.fmt(f),
        }
    }
}

const ROOTS: &str = "ROOTCA";
const KEY_PAIR: &str = "default";
const FILE_ROOTS: &str = "file-root:";
const FILE_PAIR: &str = "file-cert:";
const SYSTEM: &str = "system";
const BETWEEN_PATHS: char = '~';

/// A name that stands for nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no secret {0:?}; known are \"default\", \"ROOTCA\", \"file-cert:<certificate>~<key>\", \"file-root:<path>\" and \"file-root:system\""
)]
pub(crate) struct UnknownName(pub(crate) String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for (text, kind) in [
            ("ROOTCA", "ROOTCA"),
            ("default", "default"),
            ("file-root:system", "file-root"),
            ("file-root:/etc/certs/root.pem", "file-root"),
            ("file-root:certs/root.pem", "file-root"),
            ("file-cert:/a/cert.pem~/b/key.pem", "file-cert"),
        ] {
            let name: SecretName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(name.kind(), kind);
        }
    }

    #[test]
    fn what_is_no_name_is_said_so() {
        for text in [
            "",
            "Default",
            "rootca",
            "foo",
            "kubernetes://credential",
            "file-root:",
            "file-root:a~b",
            "file-cert:",
            "file-cert:a",
            "file-cert:a~",
            "file-cert:~b",
            "file-cert:a~b~c",
        ] {
            assert_eq!(
                text.parse::<SecretName>(),
                Err(UnknownName(text.to_owned()))
            );
        }
    }

    #[test]
    fn roots_come_before_pairs() {
        let names = [
            "file-cert:a~b",
            "default",
            "file-root:system",
            "ROOTCA",
            "file-root:a",
        ];
        let mut names = names.map(|name| name.parse::<SecretName>().unwrap());
        names.sort();
        let names = names.map(|name| name.to_string());
        assert_eq!(
            names,
            [
                "ROOTCA",
                "file-root:a",
                "file-root:system",
                "default",
                "file-cert:a~b"
            ]
        );
    }
}
