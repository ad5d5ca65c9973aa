//! Files of roots that were not written for us: where systems keep theirs, and what can be read.

use std::path::{Path, PathBuf};

use ca_core::Certificate;

/// The bundle of this system: the first that is there. If none is, the first in the list, so that a
/// complaint names a path and one that comes later is found.
pub(crate) fn of_the_system() -> PathBuf {
    let found = SYSTEM.iter().find(|path| Path::new(path).exists());
    PathBuf::from(found.unwrap_or(&SYSTEM[0]))
}

/// The certificates that read, and how many do not. A bundle of a hundred and fifty must not be lost
/// to one that breaks the rules.
pub(crate) fn readable(text: &[u8]) -> (Vec<Certificate>, usize) {
    let text = String::from_utf8_lossy(text);
    let (mut roots, mut left_out) = (Vec::new(), 0);
    for block in text.split_inclusive(END).filter_map(certificate_block) {
        match Certificate::from_pem(block.as_bytes()) {
            Ok(root) => roots.push(root),
            Err(error) => {
                left_out += 1;
                tracing::debug!(%error, "a root does not read");
            }
        }
    }
    (roots, left_out)
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificate that ends where `text` ends, without what stands before it.
fn certificate_block(text: &str) -> Option<&str> {
    let start = text.rfind(BEGIN)?;
    text.ends_with(END).then(|| &text[start..])
}

/// Where distributions keep their roots, in the order in which Istio looks.
const SYSTEM: [&str; 8] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
    "/etc/ssl/certs/ca-certificates",
];

#[cfg(test)]
mod tests {
    use ca_core::testing::TestCa;

    use super::*;

    #[test]
    fn certificates_that_do_not_read_are_left_out() {
        let [one, two] =
            [(), ()].map(|()| TestCa::new("cluster.local").roots().to_pem().to_owned());
        let broken = format!("{BEGIN}\nMIIB\n{END}\n");
        let text = format!("# comment\n{one}{broken}garbage\n{BEGIN}\n{two}trailing garbage");
        let (roots, left_out) = readable(text.as_bytes());
        let roots: String = roots.iter().map(Certificate::to_pem).collect();
        assert_eq!((roots, left_out), (format!("{one}{two}"), 1));
        for nothing in ["", "garbage", &broken] {
            assert!(readable(nothing.as_bytes()).0.is_empty());
        }
    }
}
