//! `docs/contract.md` names tests. They exist.

use std::fs;
use std::path::Path;

#[test]
fn tests_named_in_the_contract_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Only in the repository: a packaged crate has no documents beside it.
    let Ok(document) = fs::read_to_string(root.join("docs/contract.md")) else {
        return;
    };
    let mut code = String::new();
    for folder in ["ca-server", "ca-auth/src", "ca-proto/tests", "ca-core/src"] {
        collect(&root.join(folder), &mut code);
    }
    let mut named = 0;
    for row in document.lines().filter(|line| line.starts_with('|')) {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap();
        // The odd pieces stand between backquotes.
        for test in tests.split('`').skip(1).step_by(2) {
            assert!(
                code.contains(&format!("fn {test}(")),
                "there is no test {test}"
            );
            named += 1;
        }
    }
    assert!(named > 60, "{named} tests are named");
}

fn collect(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
