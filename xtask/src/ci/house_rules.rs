//! Rules of the house that a look at the files decides.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::workspace;

/// A `main.rs` parses, builds, runs and drains; anything longer hides something that has a name.
const MAIN_LINES: usize = 60;

/// A file is named after what it holds; these names hold whatever did not find its place.
const NAMES_OF_NOTHING: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "misc"];

/// Text that must be in no file, in two halves so that this file passes, and why.
const FORBIDDEN_TEXT: [(&str, &str, &str); 10] = [
    ("/ro", "ot/", "a path of one machine"),
    ("/ho", "me/", "a path of one machine"),
    ("/wo", "rk/", "a path of one machine"),
    ("/tmp/", "plan", "a path of one machine"),
    (
        "index.cra",
        "tes.io",
        "a registry's host: packages go by name",
    ),
    (
        "static.cra",
        "tes.io",
        "a registry's host: packages go by name",
    ),
    ("pypi", ".org", "a registry's host: packages go by name"),
    (
        "pythonho",
        "sted.org",
        "a registry's host: packages go by name",
    ),
    (
        "proxy.gol",
        "ang.org",
        "a registry's host: packages go by name",
    ),
    (
        "deb.deb",
        "ian.org",
        "a registry's host: packages go by name",
    ),
];

/// The same for our own Rust. Generated code is what its generator makes it.
const FORBIDDEN_RUST: [(&str, &str, &str); 3] = [
    ("TO", "DO", "finish it, or say in an issue what is missing"),
    ("FIX", "ME", "fix it, or say in an issue what is wrong"),
    (
        "#[al",
        "low(",
        "an exception is `#[expect(.., reason = ..)]`, which ends when it is not needed",
    ),
];

/// What keeps a test from running, and what its reason has to name instead: the command that runs it after all.
const IGNORED: (&str, &str) = ("#[ign", "ore");
const RUN_BY: &str = "cargo xtask";

pub(super) fn check() -> Result<()> {
    let mut faults = Vec::new();
    let mut count = 0;
    for name in workspace::files()? {
        let Ok(bytes) = fs::read(workspace::root().join(&name)) else {
            continue;
        };
        count += 1;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            faults.extend(file_faults(Path::new(&name), text));
        }
    }
    ensure!(count > 0, "git lists no files");
    ensure!(faults.is_empty(), "\n  {}", faults.join("\n  "));
    println!("{count} files keep the rules");
    Ok(())
}

fn file_faults(name: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    // Written by cargo, which names the registry in it.
    if name != Path::new("Cargo.lock") {
        faults.extend(forbidden(text, &FORBIDDEN_TEXT));
    }
    match name.extension().and_then(|extension| extension.to_str()) {
        Some("rs") => faults.extend(rust_faults(name, text)),
        Some("md") => faults.extend(link_faults(name, text)),
        _ => {}
    }
    faults
        .iter()
        .map(|fault| format!("{}: {fault}", name.display()))
        .collect()
}

fn rust_faults(name: &Path, text: &str) -> Vec<String> {
    let generated = name
        .components()
        .any(|component| component.as_os_str() == "generated");
    if generated {
        return Vec::new();
    }
    let mut faults = forbidden(text, &FORBIDDEN_RUST);
    let ignored = format!("{}{}", IGNORED.0, IGNORED.1);
    for (number, line) in text.lines().enumerate() {
        if line.contains(&ignored) && !line.contains(RUN_BY) {
            faults.push(format!(
                "line {}: `{ignored}`: a test that does not run tests nothing, unless it names the `{RUN_BY}` that runs it",
                number + 1
            ));
        }
    }
    let lines = text.lines().count();
    if name.file_name().is_some_and(|file| file == "main.rs")
        && name.parent().is_some_and(|folder| folder.ends_with("src"))
        && lines > MAIN_LINES
    {
        faults.push(format!(
            "{lines} lines: a program's main.rs has at most {MAIN_LINES}"
        ));
    }
    let modules = name.with_extension("");
    for part in modules.iter().filter_map(|part| part.to_str()) {
        if NAMES_OF_NOTHING.contains(&part) {
            faults.push(format!(
                "`{part}` says nothing: name it after what it holds"
            ));
        }
    }
    faults
}

fn forbidden(text: &str, rules: &[(&str, &str, &str)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (start, end, reason) in rules {
            let whole = format!("{start}{end}");
            if stands_alone(line, &whole) {
                faults.push(format!("line {}: `{whole}`: {reason}", number + 1));
            }
        }
    }
    faults
}

/// Somewhere in the line; a path is one from the root of a file system, and not the end of another.
fn stands_alone(line: &str, text: &str) -> bool {
    let mut places = line.match_indices(text).map(|(at, _)| &line[..at]);
    places.any(|before| !text.starts_with('/') || !before.ends_with(char::is_alphanumeric))
}

/// A link to a file must lead to one.
fn link_faults(name: &Path, text: &str) -> Vec<String> {
    let folder = workspace::root().join(name.parent().unwrap_or(Path::new("")));
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .filter(|target| !folder.join(target).exists())
        .map(|target| format!("the link to `{target}` leads nowhere"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_many_things_is_refused() {
        let faults = file_faults(Path::new("ca-core/src/utils.rs"), "");
        assert_eq!(faults.len(), 1);
        assert_eq!(
            file_faults(Path::new("ca-core/src/utils/time.rs"), "").len(),
            1
        );
        assert_eq!(file_faults(Path::new("ca-core/src/trust.rs"), ""), [""; 0]);
    }

    #[test]
    fn a_long_main_is_refused() {
        let text = "\n".repeat(MAIN_LINES + 1);
        assert_eq!(
            file_faults(Path::new("ca-server/src/main.rs"), &text).len(),
            1
        );
        assert_eq!(
            file_faults(Path::new("ca-server/tests/it/main.rs"), &text),
            [""; 0]
        );
    }

    #[test]
    fn an_ignored_test_names_the_command_that_runs_it() {
        let ignored = format!("{}{}", IGNORED.0, IGNORED.1);
        let faults = |reason: &str| rust_faults(Path::new("a.rs"), &format!("{ignored}{reason}]"));
        assert_eq!(faults("").len(), 1);
        assert_eq!(faults(" = \"needs a moon\"").len(), 1);
        assert_eq!(faults(&format!(" = \"{RUN_BY} interop\"")), [""; 0]);
    }

    #[test]
    fn forbidden_text_is_found_with_its_line() {
        for (start, end, _) in FORBIDDEN_TEXT {
            let faults = file_faults(Path::new("a.txt"), &format!("fine\n{start}{end}"));
            assert_eq!(faults.len(), 1);
            assert!(faults[0].starts_with("a.txt: line 2: "), "{}", faults[0]);
        }
        let (start, end, _) = FORBIDDEN_TEXT[0];
        assert_eq!(
            file_faults(Path::new("a.txt"), &format!("pki{start}{end}")),
            [""; 0]
        );
    }

    #[test]
    fn a_dead_link_is_found() {
        let text = "[here](Cargo.toml#x) [there](no-such-file.md) [web](https://example.com/x)";
        let faults = file_faults(Path::new("README.md"), text);
        assert_eq!(
            faults,
            ["README.md: the link to `no-such-file.md` leads nowhere"]
        );
    }
}
