//! A CA as texts: its parts, the two sets of file names they come in, and what makes a set complete.

use std::fmt;
use std::sync::Arc;

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{BundleError, KeyCertBundle};
use crate::certificate::{Certificate, CertificateChain, CertificateError};
use crate::crypto::Backend;
use crate::key::{KeyError, PrivateKey};
use crate::revocation::{RevocationError, RevocationLists};
use crate::trust::{TrustBundle, TrustError};

/// The parts of a CA, each as PEM.
#[derive(Clone)]
pub struct BundlePem {
    /// The signing certificate first; what follows is added to the chain.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Zeroizing<Vec<u8>>,
    /// Certificates between the signing certificate and a root, in any order; may be empty.
    pub chain: Vec<u8>,
    /// The roots: one or more.
    pub roots: Vec<u8>,
    /// Revocation lists, if there are any.
    pub revocation: Option<Vec<u8>>,
}

impl KeyCertBundle {
    /// Reads and verifies a CA. Intermediates are put in order, each once, and what is not on the path is left out.
    /// Revocation lists are not looked at here, because a bad one must not keep a good key from being used: see
    /// [`BundlePem::revocation_lists`].
    ///
    /// # Errors
    /// Names the part that does not read, or tells why the parts do not fit together.
    pub fn from_pem(
        parts: &BundlePem,
        backend: &Backend,
        now: OffsetDateTime,
    ) -> Result<Self, BundlePemError> {
        let part = |part: Part| move |cause| BundlePemError::Certificate { part, cause };
        let mut pool =
            Certificate::all_from_pem(&parts.certificate).map_err(part(Part::Certificate))?;
        let signing = pool.remove(0);
        if !is_blank(&parts.chain) {
            pool.extend(Certificate::all_from_pem(&parts.chain).map_err(part(Part::Chain))?);
        }
        // The same CA may be there twice, with its certificate of before and that of now.
        pool.sort_by_key(|certificate| !certificate.is_valid_at(now));
        let roots = TrustBundle::from_pem(&parts.roots).map_err(BundlePemError::Roots)?;
        let key = PrivateKey::from_pem_with(&parts.key, backend).map_err(BundlePemError::Key)?;
        let chain = CertificateChain::ordered(signing, &pool, &roots, backend);
        Ok(Self::new(Arc::new(key), chain, roots, now)?)
    }
}

impl BundlePem {
    /// The revocation lists, known to cover every issuer that `bundle` sends along.
    ///
    /// # Errors
    /// When they do not read, or leave an issuer out.
    pub fn revocation_lists(
        &self,
        bundle: &KeyCertBundle,
        backend: &Backend,
    ) -> Result<Option<RevocationLists>, RevocationError> {
        let Some(text) = self.revocation.as_deref().filter(|text| !is_blank(text)) else {
            return Ok(None);
        };
        let lists = RevocationLists::from_pem(text)?;
        lists.cover(bundle.issued_intermediates.iter(), backend)?;
        Ok(Some(lists))
    }
}

impl fmt::Debug for BundlePem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BundlePem(redacted)")
    }
}

/// The names under which the parts lie in a folder or a Kubernetes Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaLayout {
    /// Istio's: `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem` (may be empty), `root-cert.pem`, and possibly `ca-crl.pem`.
    Istio,
    /// That of `kubernetes.io/tls` secrets, as cert-manager fills them: `tls.crt`, `tls.key`, `ca.crt`.
    TlsSecret,
}

impl CaLayout {
    /// All names that mean something, of both layouts: what a folder is to be watched for.
    pub const FILES: [&'static str; 8] = [CERT, KEY, CHAIN, ROOT, CRL, TLS_CERT, TLS_KEY, TLS_ROOT];

    /// The CA that `read` gives the files of: `tls.crt` decides for that layout, as with Istio. `Ok(None)` when no file
    /// is there at all.
    ///
    /// # Errors
    /// When some files are there and some are missing: the missing ones are named.
    pub fn collect(
        read: impl Fn(&str) -> Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Option<(Self, BundlePem)>, IncompleteCa> {
        let layout = if read(TLS_CERT).is_some() {
            Self::TlsSecret
        } else {
            Self::Istio
        };
        let required: &[&'static str] = match layout {
            Self::Istio => &[CERT, KEY, CHAIN, ROOT],
            Self::TlsSecret => &[TLS_CERT, TLS_KEY, TLS_ROOT],
        };
        let missing: Vec<_> = required
            .iter()
            .copied()
            .filter(|name| read(name).is_none())
            .collect();
        if missing.len() == required.len() {
            return Ok(None);
        }
        if !missing.is_empty() {
            return Err(IncompleteCa { missing });
        }
        let text = |name: &str| read(name).map(|text| text.to_vec()).unwrap_or_default();
        let key = |name: &str| read(name).unwrap_or_default();
        let parts = match layout {
            Self::Istio => BundlePem {
                certificate: text(CERT),
                key: key(KEY),
                chain: text(CHAIN),
                roots: text(ROOT),
                revocation: read(CRL).map(|text| text.to_vec()),
            },
            Self::TlsSecret => BundlePem {
                certificate: text(TLS_CERT),
                key: key(TLS_KEY),
                chain: Vec::new(),
                roots: text(TLS_ROOT),
                revocation: None,
            },
        };
        Ok(Some((layout, parts)))
    }
}

/// Half a CA: neither to be used nor to be taken for none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("incomplete signing CA bundle detected: missing {}", missing.join(", "))]
pub struct IncompleteCa {
    /// The names of the files that are not there.
    pub missing: Vec<&'static str>,
}

/// Why texts are not a CA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundlePemError {
    /// A certificate does not read.
    #[error("{part}: {cause}")]
    Certificate {
        /// Where it stands.
        part: Part,
        /// What is wrong with it.
        cause: CertificateError,
    },
    /// The roots do not read.
    #[error("roots: {0}")]
    Roots(TrustError),
    /// The key does not read.
    #[error("private key: {0}")]
    Key(KeyError),
    /// They do not fit together.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// A part of a CA that holds certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The signing certificate.
    Certificate,
    /// What leads from it to a root.
    Chain,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "signing certificate",
            Self::Chain => "chain",
        })
    }
}

fn is_blank(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_whitespace)
}

const CERT: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOT: &str = "root-cert.pem";
const CRL: &str = "ca-crl.pem";
const TLS_CERT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const TLS_ROOT: &str = "ca.crt";

#[cfg(test)]
mod tests;
