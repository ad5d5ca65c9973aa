//! `docs/agent.md` names tests. They exist.

use std::{fs, path::Path};

#[test]
fn tests_named_in_the_documentation_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Only in the repository: a packaged crate has no documents beside it.
    let Ok(document) = fs::read_to_string(root.join("docs/agent.md")) else {
        return;
    };
    let mut code = String::new();
    for folder in ["sds-agent/src", "sds-agent/tests", "ca-core/src"] {
        collect(&root.join(folder), &mut code);
    }
    let mut named = 0;
    let last_cell = |row: &str| {
        row.trim_end_matches('|')
            .rsplit('|')
            .next()
            .unwrap()
            .trim()
            .to_owned()
    };
    // What the last column of a table is: tests, or something else.
    let mut column = String::new();
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        if lines.peek().is_some_and(|next| next.starts_with("|---")) {
            column = last_cell(line);
            continue;
        }
        if !line.starts_with('|') || column != "tests" {
            continue;
        }
        let tests = last_cell(line);
        // The odd pieces stand between backquotes.
        for test in tests.split('`').skip(1).step_by(2) {
            assert!(
                code.contains(&format!("fn {test}(")),
                "there is no test {test}"
            );
            named += 1;
        }
    }
    assert!(named > 100, "{named} tests are named");
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
