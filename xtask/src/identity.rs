//! An identity as a workload finds it on disk, and the facts of a leaf that runs compare.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pki_types::pem::PemObject as _;
use pki_types::{CertificateDer, PrivateKeyDer};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::wait;

/// A key, its chain and the roots to trust, which belong together.
pub(crate) struct Identity {
    pub(crate) leaf: Leaf,
    pub(crate) certified_key: Arc<CertifiedKey>,
    pub(crate) roots: Arc<RootCertStore>,
}

impl Identity {
    /// Reads `cert-chain.pem`, `key.pem` and `root-cert.pem`.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        // Three files cannot change at one instant: a reader may see an old one beside a new one.
        wait::until("matching set of files", Duration::from_secs(2), || {
            Ok(match Self::read_once(folder) {
                Ok(identity) => ControlFlow::Break(identity),
                Err(error) => ControlFlow::Continue(format!("{error:#}")),
            })
        })
    }

    fn read_once(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let chain = certificates(&read("cert-chain.pem")?).context("cert-chain.pem")?;
        let key = PrivateKeyDer::from_pem_slice(&read("key.pem")?).context("key.pem")?;
        let leaf = Leaf::parse(&chain[0]).context("cert-chain.pem")?;
        // Fails when the key is not the one in the certificate.
        let certified_key = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .context("cert-chain.pem and key.pem")?;
        let mut roots = RootCertStore::empty();
        for root in certificates(&read("root-cert.pem")?).context("root-cert.pem")? {
            roots.add(root).context("root-cert.pem")?;
        }
        Ok(Self {
            leaf,
            certified_key: Arc::new(certified_key),
            roots: Arc::new(roots),
        })
    }
}

/// At least one certificate.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    ensure!(!found.is_empty(), "no certificate in it");
    Ok(found)
}

/// What tells one leaf from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) serial: String,
    /// Identifier of the key that signed it, in hexadecimal digits; empty if it names none.
    pub(crate) issuer_key: String,
    /// Its end, in seconds since 1970.
    pub(crate) not_after: i64,
    /// Every name in the subject alternative name, as `URI:...` or with another label.
    pub(crate) names: Vec<String>,
}

impl Leaf {
    pub(crate) fn parse(der: &[u8]) -> Result<Self> {
        let (_, certificate) = X509Certificate::from_der(der).context("not a certificate")?;
        let names = certificate
            .subject_alternative_name()
            .context("bad subject alternative name")?
            .map(|san| san.value.general_names.iter().map(print_name).collect())
            .unwrap_or_default();
        let issuer_key = certificate
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(issuer) => issuer.key_identifier.as_ref(),
                _ => None,
            })
            .map(|key| key.0.iter().map(|byte| format!("{byte:02x}")).collect())
            .unwrap_or_default();
        Ok(Self {
            serial: format!("{:x}", certificate.serial),
            issuer_key,
            not_after: certificate.validity.not_after.timestamp(),
            names,
        })
    }

    /// The first certificate of a PEM text.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self> {
        Self::parse(&CertificateDer::from_pem_slice(pem).context("not a PEM certificate")?)
    }

    /// Is this the certificate of exactly this SPIFFE ID, and of nothing else?
    pub(crate) fn is_only(&self, spiffe_id: &str) -> bool {
        self.names
            .iter()
            .map(String::as_str)
            .eq([format!("URI:{spiffe_id}").as_str()])
    }
}

fn print_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::DNSName(dns) => format!("DNS:{dns}"),
        other => format!("{other:?}"),
    }
}
