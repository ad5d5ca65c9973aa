//! The configuration file: TOML, each key the name of a flag without its dashes.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction};
use toml::de::{DeTable, DeValue};

/// What a file sets, and where.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// One flag for each, as it would be typed; none for a switch that is off.
    pub(super) words: Vec<String>,
    pub(super) place: Place,
}

/// Where in a file, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl ConfigFile {
    /// Reads a file that may set `flags` and nothing else.
    pub(super) fn read(path: &Path, flags: &[&Arg]) -> Result<Self, ConfigFileError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigFileError::Read {
            path: path.into(),
            cause,
        })?;
        Self::parse(path, &text, flags)
    }

    fn parse(path: &Path, text: &str, flags: &[&Arg]) -> Result<Self, ConfigFileError> {
        let wrong = |problems| ConfigFileError::Wrong {
            path: path.into(),
            problems,
        };
        let table = DeTable::parse(text).map_err(|error| {
            let start = error.span().unwrap_or_default().start;
            wrong(vec![(Place::of(text, start), error.message().into())])
        })?;
        let (mut entries, mut problems) = (Vec::new(), Vec::new());
        for (key, value) in table.get_ref() {
            let name: &str = key.get_ref();
            let at = |start| Place::of(text, start);
            match flags.iter().find(|flag| flag.get_long() == Some(name)) {
                None => problems.push((at(key.span().start), unknown(name, flags))),
                Some(flag) => match words(flag, name, value.get_ref()) {
                    Ok(words) => entries.push(Entry {
                        key: name.into(),
                        words,
                        place: at(key.span().start),
                    }),
                    Err(problem) => {
                        problems.push((at(value.span().start), format!("{name}: {problem}")));
                    }
                },
            }
        }
        if problems.is_empty() {
            entries.sort_by_key(|entry| entry.place.line);
            return Ok(Self {
                path: path.into(),
                entries,
            });
        }
        problems.sort_by_key(|(place, _)| (place.line, place.column));
        Err(wrong(problems))
    }
}

/// What would have to be typed for the same.
fn words(flag: &Arg, name: &str, value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    if matches!(flag.get_action(), ArgAction::SetTrue) {
        return match value {
            DeValue::Boolean(true) => Ok(vec![format!("--{name}")]),
            DeValue::Boolean(false) => Ok(Vec::new()),
            _ => Err("must be true or false"),
        };
    }
    let DeValue::Array(values) = value else {
        return Ok(vec![format!("--{name}={}", text(value)?)]);
    };
    if !matches!(flag.get_action(), ArgAction::Append) {
        return Err("takes one value, not a list");
    }
    if values.is_empty() {
        return Err("is empty: leave it out for the default");
    }
    let values = values.iter().map(|value| text(value.get_ref()));
    values
        .map(|value| Ok(format!("--{name}={}", value?)))
        .collect()
}

fn text(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Float(_) => Err("must be a text or a whole number"),
        DeValue::Datetime(_) => Err("must be a text, not a date"),
        DeValue::Array(_) | DeValue::Table(_) => Err("must be a text, not a table"),
    }
}

fn unknown(name: &str, flags: &[&Arg]) -> String {
    let wanted = name.to_lowercase().replace('_', "-");
    let near = flags
        .iter()
        .filter_map(|flag| flag.get_long())
        .map(|known| (distance(&wanted, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min();
    match near {
        Some((_, known)) => format!("there is no {name:?}; did you mean {known:?}?"),
        None => format!("there is no {name:?}; see ca-server --help for what there is"),
    }
}

/// How many letters must be added, taken out or exchanged to come from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.chars().enumerate() {
            let exchanged = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}

impl Place {
    fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// What is wrong with a configuration file.
#[derive(Debug)]
#[non_exhaustive]
pub(super) enum ConfigFileError {
    Read {
        path: PathBuf,
        cause: std::io::Error,
    },
    Wrong {
        path: PathBuf,
        problems: Vec<(Place, String)>,
    },
}

impl fmt::Display for ConfigFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, cause } => write!(f, "cannot read {}: {cause}", path.display()),
            Self::Wrong { path, problems } => {
                // As compilers do, so that editors find the place.
                for (index, (Place { line, column }, message)) in problems.iter().enumerate() {
                    let end = if index == 0 { "" } else { "\n" };
                    write!(f, "{end}{}:{line}:{column}: {message}", path.display())?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigFileError {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Args;

    fn parse(text: &str) -> Result<ConfigFile, String> {
        let command = Args::command();
        let flags: Vec<_> = command.get_arguments().collect();
        ConfigFile::parse(Path::new("ca.toml"), text, &flags).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_become_the_flags_that_one_would_type() {
        let file = parse(
            "# A comment.\nmax-waiting = 1_000\nlisten = \"[::]:1\"\ntoken-audiences = [\"a\", \"b\"]\naudit-required = true\nxds-auth = false\n",
        );
        let words: Vec<_> = file.unwrap().entries.into_iter().collect();
        let flat: Vec<_> = words.iter().flat_map(|entry| &entry.words).collect();
        assert_eq!(
            flat,
            [
                "--max-waiting=1000",
                "--listen=[::]:1",
                "--token-audiences=a",
                "--token-audiences=b",
                "--audit-required",
                "--xds-auth=false"
            ]
        );
        assert_eq!(words[2].place, Place { line: 4, column: 1 });
        assert!(
            parse("audit-required = false").unwrap().entries[0]
                .words
                .is_empty()
        );
    }

    #[test]
    fn everything_wrong_is_told_with_its_place_and_what_was_meant() {
        for (text, expected) in [
            (
                "\n  listn = \"x\"",
                "ca.toml:2:3: there is no \"listn\"; did you mean \"listen\"?",
            ),
            (
                "data_dir = \"x\"",
                "ca.toml:1:1: there is no \"data_dir\"; did you mean \"data-dir\"?",
            ),
            (
                "zzz = 1",
                "ca.toml:1:1: there is no \"zzz\"; see ca-server --help for what there is",
            ),
            (
                "listen = [\"x\"]",
                "ca.toml:1:10: listen: takes one value, not a list",
            ),
            (
                "token-audiences = []",
                "ca.toml:1:19: token-audiences: is empty: leave it out for the default",
            ),
            (
                "audit-required = \"yes\"",
                "ca.toml:1:18: audit-required: must be true or false",
            ),
            (
                "[listen]\nx = 1",
                "ca.toml:1:1: listen: must be a text, not a table",
            ),
            (
                "max-waiting = 1.5",
                "ca.toml:1:15: max-waiting: must be a text or a whole number",
            ),
            (
                "a = 1\nlisten =",
                "ca.toml:2:9: string values must be quoted, expected literal string",
            ),
            (
                "service-account = \"a\"",
                "ca.toml:1:1: there is no \"service-account\"; see ca-server --help for what there is",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text:?}");
        }
        let two = parse("zzz = 1\nlisten = 1\nyyy = 2").unwrap_err();
        assert_eq!(two.lines().count(), 2, "{two}");
        assert!(
            two.lines().nth(1).unwrap().starts_with("ca.toml:3:1: "),
            "{two}"
        );
    }
}
