//! Flags over environment over file over defaults.
//!
//! What the file says is put in front of what was typed, as flags, where it is neither typed nor in the environment; then
//! everything is parsed as if it had been typed. So each flag can stand in the file, and is judged by one rule.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use ca_auth::DocumentUrl;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _};

use super::Args;
use super::file::{ConfigFile, ConfigFileError, Place};

/// What is in force, and where each value comes from. Printed, it is a configuration file that says the same.
#[derive(Clone, Debug)]
pub struct Settings(Vec<Setting>);

#[derive(Clone, Debug)]
struct Setting {
    key: String,
    /// `None`: not set, and without a default.
    value: Option<String>,
    origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag,
}

impl Args {
    /// Reads what was typed, the environment, and the configuration file if one is named.
    ///
    /// # Errors
    /// When any of them cannot be meant, and when help or the version was asked for.
    pub fn load(
        words: impl IntoIterator<Item = OsString>,
    ) -> Result<(Self, Settings), ConfigurationError> {
        let words: Vec<OsString> = words.into_iter().collect();
        let command = with_environment(Self::command());
        // Only for what was typed and what is in the environment: what is wrong with it is told below.
        let typed = command.clone().ignore_errors(true);
        let typed = typed.try_get_matches_from(&words)?;
        let file = match typed.get_one::<PathBuf>(CONFIG) {
            None => None,
            Some(path) => {
                let flags = command.get_arguments().filter(|arg| arg.get_id() != CONFIG);
                Some(ConfigFile::read(path, &flags.collect::<Vec<_>>()).map_err(Wrong::File)?)
            }
        };
        let mut from_file = BTreeMap::new();
        let mut all: Vec<OsString> = words.iter().take(1).cloned().collect();
        for entry in file.iter().flat_map(|file| &file.entries) {
            let mut args = command.get_arguments();
            let arg = args.find(|arg| arg.get_long() == Some(&*entry.key));
            let source = arg.and_then(|arg| typed.value_source(arg.get_id().as_str()));
            let is_typed = source == Some(ValueSource::CommandLine);
            // Also a variable that is wrong: it is to be told, and not to be passed over.
            if !is_typed && arg.and_then(variable).is_none() {
                from_file.insert(&*entry.key, entry.place);
                all.extend(entry.words.iter().map(Into::into));
            }
        }
        all.extend(words.into_iter().skip(1));
        let matches = command.clone().try_get_matches_from(all);
        let matches =
            matches.map_err(|error| placed(error, &command, &typed, file.as_ref(), &from_file))?;
        let settings = Settings::of(&command, &matches, |key, id| {
            match (&file, from_file.get(key), typed.value_source(id)) {
                (Some(file), Some(place), _) => Origin::File {
                    path: file.path.clone(),
                    line: place.line,
                },
                (_, _, Some(ValueSource::CommandLine)) => Origin::Flag,
                (_, _, Some(ValueSource::EnvVariable)) => {
                    let mut args = command.get_arguments();
                    let arg = args.find(|arg| arg.get_id() == id);
                    let name = arg.and_then(Arg::get_env);
                    Origin::Environment(name.unwrap_or_default().to_string_lossy().into())
                }
                _ => Origin::Default,
            }
        });
        Ok((Self::from_arg_matches(&matches)?, settings))
    }
}

/// Each flag has a variable: Istio's where Istio has one, else `MESH_CA_` and its name. One that is empty is not set:
/// that is how manifests leave something out.
fn with_environment(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let arg = match (arg.get_env(), arg.get_long()) {
            (None, Some(long)) => {
                let name = format!("MESH_CA_{}", long.to_uppercase().replace('-', "_"));
                arg.env(name).hide_env(true)
            }
            _ => arg,
        };
        if variable(&arg).is_some_and(|(_, value)| value.is_empty()) {
            arg.env(clap::builder::Resettable::Reset)
        } else {
            arg
        }
    })
}

/// The variable of a flag, where it is there, and what it says.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the argument parser, and it looks for what it says of variables itself"
)]
fn variable(arg: &Arg) -> Option<(String, String)> {
    let name = arg.get_env()?;
    let value = std::env::var_os(name)?;
    Some((
        name.to_string_lossy().into(),
        value.to_string_lossy().into(),
    ))
}

/// A value that was not typed is told with its place in the file, or with its variable.
fn placed(
    error: clap::Error,
    command: &clap::Command,
    typed: &ArgMatches,
    file: Option<&ConfigFile>,
    from_file: &BTreeMap<&str, Place>,
) -> ConfigurationError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let flag = text(ContextKind::InvalidArg).and_then(|flag| flag.strip_prefix("--"));
    let Some(key) = flag.and_then(|flag| flag.split([' ', '=']).next()) else {
        return error.into();
    };
    let message = || {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        shown(line.strip_prefix("error: ").unwrap_or(line)).into_owned()
    };
    if let (Some(file), Some(place)) = (file, from_file.get(key)) {
        let problems = vec![(*place, message())];
        let path = file.path.clone();
        return Wrong::File(ConfigFileError::Wrong { path, problems }).into();
    }
    let mut args = command.get_arguments();
    let arg = args.find(|arg| arg.get_long() == Some(key));
    let is_typed = arg.is_some_and(|arg| {
        typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
    });
    if !is_typed
        && let Some((name, value)) = arg.and_then(variable)
        && text(ContextKind::InvalidValue).is_some_and(|wrong| value.contains(wrong))
    {
        let message = message();
        return Wrong::Variable { name, message }.into();
    }
    error.into()
}

impl Settings {
    fn of(
        command: &clap::Command,
        matches: &ArgMatches,
        origin: impl Fn(&str, &str) -> Origin,
    ) -> Self {
        let args = command.get_arguments().filter_map(|arg| {
            let key = arg.get_long().filter(|_| arg.get_id() != CONFIG)?;
            let id = arg.get_id().as_str();
            let values: Option<Vec<_>> = matches.get_raw(id).map(Iterator::collect);
            let values = values.map(|values| {
                let values: Vec<_> = values.iter().map(|v| v.to_string_lossy()).collect();
                let values: Vec<_> = values.iter().map(|v| shown(v)).collect();
                if matches!(arg.get_action(), ArgAction::Append) {
                    let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
                    format!("[{}]", values.join(", "))
                } else {
                    plain(&values.join(","))
                }
            });
            Some(Setting {
                key: key.into(),
                value: values,
                origin: origin(key, id),
            })
        });
        Self(args.collect())
    }
}

/// No flag takes a secret, but an address may hold a password, and whoever prints the configuration puts it into a ticket.
fn shown(text: &str) -> Cow<'_, str> {
    DocumentUrl::without_userinfo(text)
}

fn plain(value: &str) -> String {
    let is_plain = value.parse::<bool>().is_ok()
        || value
            .parse::<u64>()
            .is_ok_and(|number| number.to_string() == value);
    if is_plain {
        value.into()
    } else {
        quoted(value)
    }
}

/// What JSON escapes in a text, TOML reads in the same way.
fn quoted(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Setting { key, value, origin } in &self.0 {
            match value {
                None => writeln!(f, "# {key} is not set")?,
                Some(value) => {
                    let line = format!("{key} = {value}");
                    writeln!(f, "{line:<55} # {origin}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// What was typed, or what a file says, cannot be meant; or help was asked for.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ConfigurationError(#[from] Wrong);

#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("{}", shown(&.0.to_string()))]
    Words(#[from] clap::Error),
    #[error(transparent)]
    File(ConfigFileError),
    #[error("{name}: {message}")]
    Variable { name: String, message: String },
}

impl From<clap::Error> for ConfigurationError {
    fn from(error: clap::Error) -> Self {
        Self(error.into())
    }
}

impl ConfigurationError {
    /// Says it where it belongs: help on standard output, errors on standard error.
    pub fn tell(&self) -> ExitCode {
        match &self.0 {
            Wrong::Words(error) => {
                let text = error.to_string();
                match shown(&text) {
                    // In colour, and help where it belongs. Nobody may be listening, and then there is nobody to tell.
                    Cow::Borrowed(_) => _ = error.print(),
                    Cow::Owned(text) => eprint!("{text}"),
                }
                u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, Into::into)
            }
            wrong @ (Wrong::File(_) | Wrong::Variable { .. }) => {
                eprintln!("ca-server: {wrong}");
                ExitCode::FAILURE
            }
        }
    }
}

/// The flag that names the file: the only one that cannot stand in it.
const CONFIG: &str = "config";

#[cfg(test)]
mod tests {
    use super::*;

    fn load(words: &[&str]) -> Result<(Args, String), String> {
        let words = ["ca-server"].iter().chain(words).map(Into::into);
        match Args::load(words) {
            Ok((args, settings)) => Ok((args, settings.to_string())),
            Err(error) => Err(error.to_string()),
        }
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.toml");
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().into();
        (folder, path)
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let (_folder, path) = file("data-dir = \"from-file\"\nmax-waiting = 7\n");
        let (args, settings) = load(&["--config", &path, "--data-dir", "typed"]).unwrap();
        assert_eq!(args.data_dir, PathBuf::from("typed"));
        assert_eq!(args.max_waiting.get(), 7);
        for (key, origin) in [
            ("data-dir = \"typed\"", "flag"),
            ("max-waiting = 7", &*format!("{path}:2")),
            ("max-waiting-per-identity = 64", "default"),
            ("trust-domain = \"cluster.local\"", "default"),
            ("token-audiences = [\"istio-ca\"]", "default"),
            ("audit-required = false", "default"),
        ] {
            let line = settings.lines().find(|line| line.starts_with(key));
            let line = line.unwrap_or_else(|| panic!("no {key} in\n{settings}"));
            assert!(line.ends_with(&format!(" # {origin}")), "{line}");
        }
        assert!(
            settings.contains("\n# audit-log is not set\n"),
            "{settings}"
        );
    }

    #[test]
    fn what_is_printed_is_a_file_that_says_the_same() {
        let typed = [
            "--jwt-rule",
            "{\"issuer\": \"a \\\"b\\\"\"}",
            "--dns-names",
            "a.example,b.example",
            "--xds-auth",
            "false",
        ];
        let first = load(&typed).unwrap().1;
        let (_folder, path) = file(&first);
        let second = load(&["--config", &path]).unwrap().1;
        let values = |text: &str| -> Vec<String> {
            let lines = text.lines();
            let values = lines.map(|line| {
                line.rsplit_once(" # ")
                    .map_or(line, |(v, _)| v)
                    .trim()
                    .into()
            });
            values.collect()
        };
        assert_eq!(values(&first), values(&second));
    }

    #[test]
    fn what_must_stand_together_may_stand_in_different_layers() {
        let (_folder, path) = file("audit-log = \"a.log\"\n");
        assert!(
            load(&["--config", &path, "--audit-required"])
                .unwrap()
                .0
                .audit_required
        );
        let (_folder, path) = file("audit-required = true\n");
        assert!(load(&["--config", &path, "--audit-log", "a.log"]).is_ok());
        assert!(
            load(&["--config", &path])
                .unwrap_err()
                .contains("--audit-log")
        );
    }

    #[test]
    fn a_value_that_cannot_be_is_told_with_its_place_in_the_file() {
        let (_folder, path) = file("\nlisten = \"nowhere\"\n");
        let error = load(&["--config", &path]).unwrap_err();
        let expected = format!("{path}:2:1: invalid value 'nowhere' for '--listen <ADDRESS>': ");
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(error.lines().count(), 1);
        // Typed, it is the flag that is wrong.
        let error = load(&["--config", &path, "--listen", "nobody"]).unwrap_err();
        assert!(
            error.starts_with("error: invalid value 'nobody'"),
            "{error}"
        );
        let (_folder, path) = file("config = \"other.toml\"\n");
        assert!(
            load(&["--config", &path])
                .unwrap_err()
                .contains("no \"config\"")
        );
        assert!(
            load(&["--config", "/no/such/file"])
                .unwrap_err()
                .starts_with("cannot read /no/such/file: ")
        );
    }

    #[test]
    fn no_flag_takes_a_secret_and_each_has_a_variable() {
        let command = with_environment(Args::command());
        for arg in command.get_arguments() {
            let name = arg.get_long().unwrap();
            // What is typed is seen by everybody on the machine, and printed by `ca-server config`.
            for word in ["password", "secret", "passphrase"] {
                assert!(!name.contains(word), "--{name}");
            }
            assert!(arg.get_env().is_some(), "--{name}");
        }
    }
}
