//! The work: a CSR as PEM in, a certificate as PEM out.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use ca_core::crypto::Backend;
use ca_core::{
    BundleStore, CertificateChain, Csr, IssuedChain, KeyCertBundle, KeyKind, LocalAuthority,
    PrivateKey, SigningRequest, SubjectName, TrustBundle,
};
use time::OffsetDateTime;

use crate::library::Library;
use crate::material::{Material, NAME};

const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// One CA, and one request that comes in again and again.
pub struct Issuance {
    backend: &'static Backend,
    authority: LocalAuthority,
    csr: Vec<u8>,
    names: Vec<SubjectName>,
}

impl Issuance {
    /// A CA with a key of kind `ca`, for requests with a key of kind `csr`.
    ///
    /// # Errors
    /// When the material is not there or does not fit together.
    pub fn new(
        library: Library,
        material: &Material<'_>,
        ca: KeyKind,
        csr: KeyKind,
    ) -> Result<Self> {
        let backend = library.backend();
        let key = PrivateKey::from_pem_with(material.read(ca, "key")?.as_bytes(), backend)?;
        let root = CertificateChain::from_pem(material.read(ca, "crt")?.as_bytes())?;
        let roots = TrustBundle::new([root.leaf().clone()])?;
        let bundle = KeyCertBundle::new(Arc::new(key), root, roots, now())?;
        Ok(Self {
            backend,
            authority: LocalAuthority::new(BundleStore::new(bundle)),
            csr: material.read(csr, "csr")?.into_bytes(),
            names: vec![NAME.parse()?],
        })
    }

    /// Does it once. What comes out has its PEM text in it.
    ///
    /// # Errors
    /// When the request is refused.
    pub fn issue(&self) -> Result<IssuedChain> {
        let csr = Csr::from_pem_with(&self.csr, self.backend)?;
        // The copy is part of the work: a CA makes the names of each caller anew.
        let request = SigningRequest::new(csr, self.names.clone(), LIFETIME);
        let issued = self.authority.issue(&request, now())?;
        for certificate in issued.chain().iter() {
            std::hint::black_box(certificate.to_pem());
        }
        Ok(issued)
    }

    /// The CSR, as PEM.
    pub fn csr_pem(&self) -> &[u8] {
        &self.csr
    }

    /// The cell from which this CA takes its key and certificates.
    pub fn bundles(&self) -> &BundleStore {
        self.authority.bundles()
    }
}

/// Read once for each certificate, as a CA must.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge: real work reads the real clock"
)]
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
