//! Keys, roots and requests of each kind: made once, so that everyone works on the same bytes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ca_core::crypto::AWS_LC_RS;
use ca_core::{Csr, KeyKind, PrivateKey, RootParams};
use pki_types::PrivateKeyDer;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use time::OffsetDateTime;

use crate::kind::{ALL_KINDS, label};

const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);

/// A folder with `<kind>.key` (PKCS#8) and `<kind>.crt` of a root, and `<kind>.csr` of a workload, for each kind.
pub struct Material<'a>(pub &'a Path);

impl Material<'_> {
    /// Makes all of it anew.
    ///
    /// # Errors
    /// When a key cannot be made or a file not be written.
    pub fn make(&self, now: OffsetDateTime) -> Result<()> {
        for kind in ALL_KINDS {
            let root_key = PrivateKey::generate_with(kind, &AWS_LC_RS)?;
            let root = RootParams::new(TRUST_DOMAIN, ROOT_LIFETIME).self_sign(&root_key, now)?;
            self.write(kind, "key", &root_key.to_pkcs8_pem())?;
            self.write(kind, "crt", root.to_pem())?;
            self.write(kind, "csr", &request_of_an_agent(kind)?)?;
        }
        Ok(())
    }

    /// One of the files.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, kind: KeyKind, what: &str) -> Result<String> {
        let path = self.path(kind, what);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn write(&self, kind: KeyKind, what: &str, text: &str) -> Result<()> {
        let path = self.path(kind, what);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn path(&self, kind: KeyKind, what: &str) -> std::path::PathBuf {
        self.0.join(format!("{}.{what}", label(kind)))
    }
}

/// As Istio's agent makes it: a subject that is one empty organization, and the name in a critical extension.
fn request_of_an_agent(kind: KeyKind) -> Result<String> {
    let key = PrivateKey::generate_with(kind, &AWS_LC_RS)?;
    let key = PrivateKeyDer::Pkcs8(key.pkcs8_der().to_vec().into());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "");
    params.subject_alt_names = vec![SanType::URI(NAME.try_into()?)];
    let request = params.serialize_request(&KeyPair::try_from(&key)?)?;
    Ok(Csr::from_der(request.der())?.to_pem())
}

pub(crate) const TRUST_DOMAIN: &str = "cluster.local";
/// Whom all certificates are for. The peer has the same name in its source.
pub(crate) const NAME: &str = "spiffe://cluster.local/ns/shop/sa/cart";
