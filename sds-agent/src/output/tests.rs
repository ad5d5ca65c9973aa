use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::secrets::testing::Lineage;

#[test]
fn the_files_are_those_of_the_secret_and_the_key_is_its_owners() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/for/it");
    let output = OutputFolder::open(&path).unwrap();
    let lineage = Lineage::new();
    for _ in 0..3 {
        let workload = lineage.workload();
        output.replace(&workload).unwrap();
        let secret = &workload.secret;
        for (name, text, mode) in [
            ("key.pem", secret.key_pem(), 0o600),
            ("cert-chain.pem", &secret.chain_pem(), 0o644),
            ("root-cert.pem", workload.roots.to_pem(), 0o644),
        ] {
            let path = path.join(name);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let found = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{name}");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_found_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = OutputFolder::open(&file.join("below")).unwrap_err();
    assert!(error.to_string().ends_with("file/below"), "{error}");
}
