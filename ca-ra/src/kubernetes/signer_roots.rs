//! The roots that answers are verified with, and that workloads are told to trust.

use std::collections::BTreeMap;
use std::path::Path;

use ca_core::files::{FileSet, FollowError, FollowOptions, FollowedFiles, Snapshot};
use ca_core::{CertificateChain, TrustBundle};

use super::answer::Answer;
use super::error::KubernetesSignerError;

/// Which roots belong to a signer: its own file, else the file for all, else what its answers bring along.
///
/// ```no_run
/// use ca_ra::SignerRoots;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // One signer has roots of its own; those of all others are what they say themselves.
/// let roots = SignerRoots::from_answers()
///     .with_signer("example.com/payments", "/etc/roots/payments.pem".as_ref())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SignerRoots {
    by_signer: BTreeMap<String, FollowedFiles<TrustBundle>>,
    otherwise: Otherwise,
}

#[derive(Clone, Debug)]
enum Otherwise {
    File(FollowedFiles<TrustBundle>),
    Answer,
}

impl SignerRoots {
    /// Whoever signs says what its roots are: cert-manager's `status.ca`, else what is self-signed in the chain. **A signer that
    /// changes its root overnight takes the mesh along**, so a file is better.
    pub fn from_answers() -> Self {
        Self {
            by_signer: BTreeMap::new(),
            otherwise: Otherwise::Answer,
        }
    }

    /// Those in a file (PEM), which is followed.
    ///
    /// # Errors
    /// When it cannot be read, or has no roots.
    pub fn in_file(path: &Path) -> Result<Self, FollowError> {
        Ok(Self {
            by_signer: BTreeMap::new(),
            otherwise: Otherwise::File(follow(path)?),
        })
    }

    /// One signer has its own, in a file that is followed.
    ///
    /// # Errors
    /// When it cannot be read, or has no roots.
    pub fn with_signer(mut self, signer: &str, path: &Path) -> Result<Self, FollowError> {
        self.by_signer.insert(signer.to_owned(), follow(path)?);
        Ok(self)
    }

    /// What is known beforehand: all that is in files, each root once.
    pub fn known(&self) -> Option<TrustBundle> {
        let files = self.files();
        let bundles = files.map(|file| (*file.current()).clone());
        bundles.reduce(|all, bundle| all.merge(&bundle))
    }

    /// Whether answers can bring roots that are not known beforehand.
    pub fn may_learn(&self) -> bool {
        matches!(self.otherwise, Otherwise::Answer)
    }

    /// Waits until a file may have changed.
    pub async fn changed(&self) {
        let waits = self.files().map(|file| {
            let mut changes = file.subscribe();
            Box::pin(async move {
                changes.changed().await;
            })
        });
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        futures_util::future::select_all(waits).await;
    }

    fn files(&self) -> impl Iterator<Item = &FollowedFiles<TrustBundle>> {
        let common = match &self.otherwise {
            Otherwise::File(file) => Some(file),
            Otherwise::Answer => None,
        };
        common.into_iter().chain(self.by_signer.values())
    }

    pub(super) fn of(
        &self,
        signer: &str,
        answer: &Answer,
        chain: &CertificateChain,
    ) -> Result<TrustBundle, KubernetesSignerError> {
        match (self.by_signer.get(signer), &self.otherwise) {
            (Some(file), _) | (None, Otherwise::File(file)) => Ok((*file.current()).clone()),
            (None, Otherwise::Answer) => answer.roots(chain),
        }
    }
}

fn follow(path: &Path) -> Result<FollowedFiles<TrustBundle>, FollowError> {
    let (files, path) = (FileSet::new().required(path), path.to_owned());
    let parse = move |files: &Snapshot, _: Option<&TrustBundle>| {
        let roots = TrustBundle::from_pem(files.require(&path)?);
        roots.map_err(|cause| -> Box<dyn std::error::Error + Send + Sync> {
            format!("{}: {cause}", path.display()).into()
        })
    };
    FollowedFiles::start(files, FollowOptions::new(), parse)
}

#[cfg(test)]
mod tests {
    use ca_core::testing::TestCa;

    use super::*;

    /// Istio's order: what is configured for the signer, then what the answer brings, else nothing.
    #[test]
    fn a_signers_own_file_wins_over_the_common_one_and_that_over_the_answer() {
        let [own, common, brought] = ["own", "common", "brought"].map(TestCa::new);
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, ca: &TestCa| {
            let path = folder.path().join(name);
            std::fs::write(&path, ca.root_pem()).unwrap();
            path
        };
        let (own_file, common_file) = (file("own", &own), file("common", &common));
        let chain = brought.workload("shop", "cart").1;
        let pem = chain.to_pem() + &brought.root_pem();
        let answer = Answer::new(pem.into_bytes(), None);
        let chain = answer.chain(chain.leaf().public_key()).unwrap();
        let of = |roots: &SignerRoots, signer: &str| roots.of(signer, &answer, &chain);

        let files = SignerRoots::in_file(&common_file).unwrap();
        let files = files.with_signer("d/own", &own_file).unwrap();
        assert_eq!(of(&files, "d/own").unwrap(), own.roots());
        assert_eq!(of(&files, "d/other").unwrap(), common.roots());
        assert_eq!(files.known(), Some(common.roots().merge(&own.roots())));
        assert!(!files.may_learn());

        let answers = SignerRoots::from_answers();
        assert_eq!(of(&answers, "d/other").unwrap(), brought.roots());
        assert_eq!(answers.known(), None);
        let answers = answers.with_signer("d/own", &own_file).unwrap();
        assert_eq!(of(&answers, "d/own").unwrap(), own.roots());

        let named = Answer::new(chain.leaf().to_pem().into(), Some(common.root_pem().into()));
        let alone = named.chain(chain.leaf().public_key()).unwrap();
        let of_named = answers.of("d/other", &named, &alone).unwrap();
        assert_eq!(of_named, common.roots(), "what the signer names");
        let silent = Answer::new(chain.leaf().to_pem().into(), None);
        assert!(matches!(
            answers.of("d/other", &silent, &alone),
            Err(KubernetesSignerError::NoRoots(_))
        ));
    }
}
