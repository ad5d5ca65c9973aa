use std::os::unix::fs::PermissionsExt as _;

use ca_core::{CertificateChain, PrivateKey, SigningKey as _};

use super::*;
use crate::secrets::testing::Lineage;

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn flat_names_lead_to_the_current_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/for/it");
    let output = OutputFolder::open(&path).unwrap();
    let lineage = Lineage::new();
    for _ in 0..3 {
        let workload = lineage.workload();
        output.replace(&workload).unwrap();
        let secret = &workload.secret;
        assert_eq!(read(&path, KEY), secret.key_pem());
        assert_eq!(read(&path, CHAIN), secret.chain_pem());
        assert_eq!(read(&path, ROOTS), workload.roots.to_pem());
        let mode = fs::metadata(path.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // The current secret and the one before it; nothing else is left over.
    assert_eq!(output.folders().unwrap().len(), 2);
    assert!(!path.join(TEMPORARY).exists());
}

#[test]
fn plain_files_of_another_agent_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(KEY), "old").unwrap();
    let workload = Lineage::new().workload();
    OutputFolder::open(folder.path())
        .unwrap()
        .replace(&workload)
        .unwrap();
    assert_eq!(read(folder.path(), KEY), workload.secret.key_pem());
}

#[test]
fn leftovers_of_a_killed_agent_are_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("..secret-41")).unwrap();
    fs::write(folder.path().join("..secret-41/key.pem"), "half").unwrap();
    symlink("nowhere", folder.path().join(TEMPORARY)).unwrap();
    let output = OutputFolder::open(folder.path()).unwrap();
    let workload = Lineage::new().workload();
    output.replace(&workload).unwrap();
    assert_eq!(read(folder.path(), KEY), workload.secret.key_pem());
    assert_eq!(output.folders().unwrap(), ["..secret-42"]);
}

#[test]
fn a_reader_that_opens_the_current_folder_never_sees_a_mixed_pair() {
    let folder = tempfile::tempdir().unwrap();
    let output = OutputFolder::open(folder.path()).unwrap();
    let lineage = Lineage::new();
    output.replace(&lineage.workload()).unwrap();
    let current = folder.path().join(CURRENT);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..50 {
                output.replace(&lineage.workload()).unwrap();
            }
        });
        let mut seen = 0;
        while !writer.is_finished() || seen == 0 {
            let held = fs::canonicalize(&current).unwrap();
            let files = [KEY, CHAIN].map(|name| fs::read(held.join(name)));
            // Overtaken twice: the reader takes the next one.
            let [Ok(key), Ok(chain)] = files else {
                continue;
            };
            let key = PrivateKey::from_pem(&key).unwrap();
            let chain = CertificateChain::from_pem(&chain).unwrap();
            assert_eq!(chain.leaf().public_key(), key.public_key());
            seen += 1;
        }
    });
}

#[test]
fn a_folder_that_cannot_be_written_is_found_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = OutputFolder::open(&file.join("below")).unwrap_err();
    assert!(error.to_string().ends_with("file/below"), "{error}");
}
