//! The files of a CA as one text, and what every CA that was read from files must be able to do.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ca_core::{
    BundleStore, Certificate, Csr, KeyCertBundle, LocalAuthority, SigningRequest, create_csr_pem,
};
use zeroize::Zeroizing;

use crate::fixed::{self, HOUR, NOW, WORKLOAD_KEY, cart};
use crate::reply::{self, REPLY};
use crate::second_opinion;

/// Files by name. In the text, a line `# <name>` begins a file; a line `@c<n>` stands for the certificate of that number,
/// `@k<n>` for a key, `@r<n>` for a revocation list. All other lines are what they are.
pub struct Folder(BTreeMap<String, Vec<u8>>);

impl Folder {
    pub fn read(text: &[u8]) -> Self {
        let mut files = BTreeMap::new();
        let mut name = String::new();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let words = std::str::from_utf8(line).unwrap_or_default().trim_end();
            if let Some(next) = words.strip_prefix("# ") {
                name = next.to_owned();
                files.entry(name.clone()).or_default();
                continue;
            }
            let file: &mut Vec<u8> = files.entry(name.clone()).or_default();
            match piece(words) {
                Some(pem) => file.extend_from_slice(pem.as_bytes()),
                None => file.extend_from_slice(line),
            }
        }
        Self(files)
    }

    pub fn get(&self, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.0.get(name).cloned().map(Zeroizing::new)
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.has(name))
    }
}

fn piece(words: &str) -> Option<String> {
    let number = |text: &str| text.parse::<u8>().ok();
    if let Some(n) = words.strip_prefix("@c").and_then(number) {
        let usual = usize::from(n).checked_sub(100);
        let certificate = match usual {
            None => REPLY.pick(n),
            Some(n) => UNTIMELY.get(n)?,
        };
        return Some(certificate.to_pem().to_owned());
    }
    if let Some(n) = words.strip_prefix("@k").and_then(number) {
        return Some(pem::encode(&pem::Pem::new(
            "PRIVATE KEY",
            fixed::key_der(n),
        )));
    }
    let n = words.strip_prefix("@r").and_then(number)?;
    REPLY.revocation.get(usize::from(n)).cloned()
}

/// The upper intermediate when it was over already, and when it is not yet valid.
static UNTIMELY: LazyLock<[Certificate; 2]> = LazyLock::new(reply::untimely);

/// Certifies a workload with a CA that was accepted: the certificate must lead to its roots.
pub fn check(bundle: KeyCertBundle) {
    assert_eq!(
        bundle.signing_certificate().public_key(),
        bundle.key().public_key()
    );
    let roots = bundle.roots().clone();
    let (not_before, not_after) = (bundle.not_before(), bundle.not_after());
    let authority = LocalAuthority::new(BundleStore::new(bundle));
    static REQUEST: LazyLock<Csr> = LazyLock::new(|| {
        let text = create_csr_pem(&*WORKLOAD_KEY, &[cart()]).expect("a request");
        Csr::from_pem(text.as_bytes()).expect("a request")
    });
    let request = SigningRequest::new(REQUEST.clone(), vec![cart()], HOUR);
    let issued = authority.issue(&request, NOW).expect("a CA signs");
    assert_eq!(issued.roots(), &roots);
    issued
        .chain()
        .verify(&roots, NOW)
        .expect("what it signs leads to its roots");
    let leaf = issued.chain().leaf();
    assert_eq!(leaf.names(), [cart()]);
    assert!(not_before <= leaf.not_before() && leaf.not_after() <= not_after);
    assert!(second_opinion::certificate(leaf), "webpki cannot read it");
    for certificate in issued.chain().intermediates() {
        assert!(!roots.contains(certificate), "a root is sent");
    }
}

/// No part of a key that is in one of these texts may be shown.
pub fn check_hidden(shown: &str, keys: impl IntoIterator<Item = Zeroizing<String>>) {
    for key in keys {
        // The start of a key tells its kind. Short texts are everywhere, and no secrets.
        let secret = key.lines().nth(1).and_then(|line| line.get(32..));
        let secret = secret.filter(|secret| secret.len() >= 16);
        assert!(
            !secret.is_some_and(|secret| shown.contains(secret)),
            "a key is shown"
        );
    }
}
