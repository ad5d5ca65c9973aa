//! Partners that come as Python packages, installed by package name into a cache folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::workspace;

/// A virtual environment with exactly these packages, kept between runs.
pub(crate) struct Venv {
    folder: PathBuf,
}

impl Venv {
    /// Installs what is missing. The versions are part of each requirement, so that a new release
    /// of a partner is a change of ours and not a surprise.
    pub(crate) fn with(name: &str, requirements: &[&str]) -> Result<Self> {
        let folder = workspace::cache("partners")?.join(name);
        // Written last, so that an interrupted installation is not taken for a finished one.
        let marker = folder.join("installed");
        let wanted = requirements.join("\n");
        let venv = Self { folder };
        if fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
            return Ok(venv);
        }
        println!("installing {} (once)", requirements.join(", "));
        let mut create = workspace::command("python3");
        workspace::output(create.args(["-m", "venv", "--clear"]).arg(&venv.folder))
            .context("a Python virtual environment is needed (Debian: python3-venv)")?;
        let mut pip = workspace::command(venv.program("pip"));
        workspace::output(
            pip.args(["install", "--quiet", "--disable-pip-version-check"])
                .args(requirements),
        )?;
        fs::write(&marker, wanted).with_context(|| format!("cannot write {}", marker.display()))?;
        Ok(venv)
    }

    /// A program that one of the packages brought.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// One of our scripts, run with these packages.
    pub(crate) fn script(&self, name: &str) -> Command {
        let mut command = workspace::command(self.program("python"));
        command.arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("python")
                .join(name),
        );
        command
    }

    /// A file inside an installed package.
    pub(crate) fn package_file(&self, path: &str) -> Result<PathBuf> {
        let mut python = workspace::command(self.program("python"));
        let packages = workspace::output(
            python.args(["-c", "import site; print(site.getsitepackages()[0])"]),
        )?;
        let file = Path::new(packages.trim_end()).join(path);
        file.canonicalize()
            .with_context(|| format!("no file {}", file.display()))
    }
}
