//! `ca-server config`: what is in force, and where each value comes from.

use crate::args::{Args, Settings};
use crate::config::{Config, ConfigError};

/// Prints it as a configuration file that says the same, and fails if a server would not start with it.
pub(super) fn config(args: Args, settings: &Settings) -> Result<(), ConfigError> {
    print!("{settings}");
    Config::try_from(args).map(drop)
}
