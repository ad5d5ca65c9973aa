//! A state as named texts: what a folder or a Kubernetes Secret holds of it.
//!
//! The first four names are those of a plugged-in CA with Istio, so that the folder of a state can serve as one.

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::AuthorityState;
use crate::certificate::{Certificate, CertificateChain};
use crate::crypto::Backend;
use crate::key::PrivateKey;
use crate::rotation::{Rotation, Successor};
use crate::trust::TrustBundle;

impl AuthorityState {
    /// Every name that a text of any state can have: what is not among those of a state is to be removed with the one before.
    pub const FILE_NAMES: [&'static str; 8] = [
        KEY,
        CERTIFICATE,
        CHAIN,
        ROOTS,
        ROTATION,
        NEXT_KEY,
        NEXT_ROOT,
        RETIRING,
    ];

    /// Each text with its name. **Keys are among them.**
    pub fn to_files(&self) -> Vec<(&'static str, Zeroizing<String>)> {
        let text = |text: &str| Zeroizing::new(text.to_owned());
        let intermediates = self
            .chain
            .intermediates()
            .iter()
            .map(Certificate::to_pem)
            .collect();
        let mut files = vec![
            (KEY, self.key.to_pkcs8_pem()),
            (CERTIFICATE, text(self.chain.leaf().to_pem())),
            (CHAIN, Zeroizing::new(intermediates)),
            (ROOTS, text(self.roots.to_pem())),
        ];
        let stage = |since: &OffsetDateTime| {
            Zeroizing::new(format!(
                "{} {}\n",
                self.rotation.name(),
                since.unix_timestamp()
            ))
        };
        match &self.rotation {
            Rotation::Steady => {}
            Rotation::Prepared { next, since } => files.extend([
                (ROTATION, stage(since)),
                (NEXT_KEY, next.key.to_pkcs8_pem()),
                (NEXT_ROOT, text(next.root.to_pem())),
            ]),
            Rotation::Activated { retiring, since } => {
                files.extend([
                    (ROTATION, stage(since)),
                    (RETIRING, text(retiring.to_pem())),
                ]);
            }
        }
        files
    }

    /// Reads what [`to_files`](Self::to_files) has written; `read` gives the text of a name.
    ///
    /// # Errors
    /// Names the text that is missing or does not read.
    pub fn from_files(
        read: impl Fn(&str) -> Option<Zeroizing<Vec<u8>>>,
        backend: &Backend,
    ) -> Result<Self, StateFileError> {
        let required = |name: &'static str| {
            read(name).ok_or_else(|| StateFileError {
                name,
                cause: "missing".into(),
            })
        };
        let key = |name| PrivateKey::from_pem_with(&required(name)?, backend).map_err(bad(name));
        let certificate = |name| Certificate::from_pem(&required(name)?).map_err(bad(name));
        let intermediates = match required(CHAIN)? {
            chain if chain.is_empty() => Vec::new(),
            chain => Certificate::all_from_pem(&chain).map_err(bad(CHAIN))?,
        };
        let rotation = match read(ROTATION) {
            None => Rotation::Steady,
            Some(text) => match read_stage(&text)? {
                (Stage::Prepared, since) => Rotation::Prepared {
                    next: Successor {
                        key: key(NEXT_KEY)?,
                        root: certificate(NEXT_ROOT)?,
                    },
                    since,
                },
                (Stage::Activated, since) => Rotation::Activated {
                    retiring: certificate(RETIRING)?,
                    since,
                },
            },
        };
        Ok(Self {
            key: key(KEY)?,
            chain: CertificateChain::new(certificate(CERTIFICATE)?, intermediates),
            roots: TrustBundle::from_pem(&required(ROOTS)?).map_err(bad(ROOTS))?,
            rotation,
        })
    }
}

/// A text that keeps a state from being read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {cause}")]
pub struct StateFileError {
    /// The name of the text.
    pub name: &'static str,
    /// What is wrong with it.
    pub cause: String,
}

enum Stage {
    Prepared,
    Activated,
}

fn read_stage(text: &[u8]) -> Result<(Stage, OffsetDateTime), StateFileError> {
    let read = || {
        let (name, since) = std::str::from_utf8(text).ok()?.trim_end().split_once(' ')?;
        let stage = match name {
            "prepared" => Stage::Prepared,
            "activated" => Stage::Activated,
            _ => return None,
        };
        Some((
            stage,
            OffsetDateTime::from_unix_timestamp(since.parse().ok()?).ok()?,
        ))
    };
    let cause = "not a stage of a rotation and the second since when";
    read().ok_or_else(|| StateFileError {
        name: ROTATION,
        cause: cause.into(),
    })
}

fn bad<E: std::fmt::Display>(name: &'static str) -> impl Fn(E) -> StateFileError {
    move |cause| StateFileError {
        name,
        cause: cause.to_string(),
    }
}

const KEY: &str = "ca-key.pem";
const CERTIFICATE: &str = "ca-cert.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOTS: &str = "root-cert.pem";
const ROTATION: &str = "rotation";
const NEXT_KEY: &str = "next-key.pem";
const NEXT_ROOT: &str = "next-cert.pem";
const RETIRING: &str = "retiring-cert.pem";
