//! Certificates that were there before the agent: mounted into the pod, or made by the platform.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{SecretName, files::Source};

/// What is served from files instead of from the CA. Key pair and roots are decided independently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) key_pair: Option<Source>,
    pub(crate) roots: Option<Source>,
}

/// What chain, key and roots are called: as Istio has them, and as Google's Kubernetes Engine mounts them.
const NAMES: [[&str; 3]; 2] = [
    ["cert-chain.pem", "key.pem", "root-cert.pem"],
    ["certificates.pem", "private_key.pem", "ca_certificates.pem"],
];

impl Mounted {
    /// Looks into `folders`; earlier ones win. The folder that the agent writes to is passed over:
    /// it would follow itself, and never renew.
    pub(crate) fn find(folders: &[PathBuf], output: Option<&Path>) -> Self {
        let real = |path: &Path| fs::canonicalize(path).ok();
        let own = output.and_then(real);
        let mut found = Self::default();
        for folder in folders {
            if own.is_some() && real(folder) == own {
                continue;
            }
            for names in NAMES {
                let [certificate, key, roots] = names.map(|name| folder.join(name));
                if found.key_pair.is_none() && has_contents(&certificate) && has_contents(&key) {
                    found.key_pair = Some(Source::KeyPair { certificate, key });
                }
                if found.roots.is_none() && has_contents(&roots) {
                    found.roots = Some(Source::Roots(roots));
                }
            }
        }
        found
    }

    /// Everything that is served from files.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (SecretName, Source)> {
        let pair = self
            .key_pair
            .clone()
            .map(|pair| (SecretName::KeyPair, pair));
        let roots = self.roots.clone().map(|roots| (SecretName::Roots, roots));
        pair.into_iter().chain(roots)
    }

    /// Whether nothing is left for a CA to do.
    pub(crate) fn is_complete(&self) -> bool {
        self.key_pair.is_some() && self.roots.is_some()
    }
}

fn has_contents(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pair_and_roots_are_found_independently_and_empty_files_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        for made in [&a, &b] {
            fs::create_dir(made).unwrap();
        }
        let folders = [a.clone(), b.clone()];
        let find = || Mounted::find(&folders, None);
        assert_eq!(find(), Mounted::default());
        fs::write(a.join("cert-chain.pem"), "C").unwrap();
        fs::write(a.join("key.pem"), "").unwrap();
        fs::write(b.join("root-cert.pem"), "R").unwrap();
        assert!(find().key_pair.is_none() && !find().is_complete());
        assert_eq!(find().roots, Some(Source::Roots(b.join("root-cert.pem"))));
        fs::write(a.join("key.pem"), "K").unwrap();
        assert!(find().is_complete());
        let names: Vec<_> = find().sources().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["default", "ROOTCA"]);
    }

    #[test]
    fn files_of_either_platform_are_found_and_istios_names_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let find = || Mounted::find(&[folder.path().to_owned()], None);
        let pair = |[certificate, key, _]: [&str; 3]| Source::KeyPair {
            certificate: path(certificate),
            key: path(key),
        };
        let [istio, google] = NAMES;
        for name in google {
            fs::write(path(name), name).unwrap();
        }
        assert!(find().is_complete());
        assert_eq!(find().key_pair, Some(pair(google)));
        assert_eq!(find().roots, Some(Source::Roots(path(google[2]))));
        for name in &istio[..2] {
            fs::write(path(name), name).unwrap();
        }
        assert_eq!(find().key_pair, Some(pair(istio)));
        assert_eq!(find().roots, Some(Source::Roots(path(google[2]))));
    }

    #[test]
    fn the_folder_that_the_agent_writes_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["cert-chain.pem", "key.pem", "root-cert.pem"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let own = Mounted::find(&[folder.path().to_owned()], Some(&link));
        assert_eq!(own, Mounted::default());
    }
}
