//! Documents name the tests that hold what they say: in tables whose last column is called so. The tests exist.

use std::collections::HashSet;
use std::fs;

use anyhow::{Result, ensure};

use crate::workspace;

/// What such a column is called.
const COLUMN: [&str; 2] = ["test", "tests"];

pub(super) fn check() -> Result<()> {
    let (mut documents, mut functions) = (Vec::new(), HashSet::new());
    for name in workspace::files()? {
        let Ok(text) = fs::read_to_string(workspace::root().join(&name)) else {
            continue;
        };
        if name.ends_with(".rs") {
            functions.extend(functions_of(&text).map(str::to_owned));
        } else if name.ends_with(".md") {
            documents.push((name, text));
        }
    }
    let (mut count, mut faults) = (0, Vec::new());
    for (name, text) in &documents {
        for test in named_by(text) {
            count += 1;
            if !functions.contains(test) {
                faults.push(format!("{name}: there is no test `{test}`"));
            }
        }
    }
    ensure!(faults.is_empty(), "\n  {}", faults.join("\n  "));
    // Or no table was found, and nothing was compared.
    ensure!(count > 200, "the documents name {count} tests");
    println!("{count} tests are named, and there are");
    Ok(())
}

fn functions_of(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("fn ").skip(1);
    after.filter_map(|rest| rest.split(['(', '<']).next())
}

/// What stands between backquotes in such a column.
fn named_by(document: &str) -> Vec<&str> {
    let mut named = Vec::new();
    let mut is_wanted = false;
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.starts_with('|') {
            is_wanted = false;
        } else if lines.peek().is_some_and(|next| next.starts_with("|---")) {
            is_wanted = COLUMN.contains(&last_cell(line));
        } else if is_wanted {
            named.extend(last_cell(line).split('`').skip(1).step_by(2));
        }
    }
    named
}

fn last_cell(row: &str) -> &str {
    let row = row.trim_end_matches('|');
    row.rsplit('|').next().unwrap_or(row).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found_in_their_column_and_nowhere_else() {
        let document = "
| `what` | tests |
|---|---|
| `no` | `a`, `b` |
| `no` | none |

| what | `how` |
|---|---|
| `no` | `no` |
";
        assert_eq!(named_by(document), ["a", "b"]);
    }

    #[test]
    fn functions_are_found_whatever_they_are() {
        let code = "fn a() {}\nasync fn b(x: u8) {}\nfn c<T>() {}";
        let found: Vec<_> = functions_of(code).collect();
        assert_eq!(found, ["a", "b", "c"]);
    }
}
