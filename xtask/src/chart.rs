//! The Helm chart, and Helm, which is built from its Go module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::go::{self, Program};
use crate::workspace;

const MODULE: &str = "helm";

const HELM: Program = Program {
    name: "helm",
    package: "helm.sh/helm/v4/cmd/helm",
    stamps: &[],
};

/// What the plain manifests are made for, as the documents install it.
const RELEASE: [&str; 3] = ["mesh-ca", "--namespace", "istio-system"];

pub(crate) struct Chart {
    helm: PathBuf,
    /// Where Helm keeps what it keeps.
    home: PathBuf,
    folder: PathBuf,
}

impl Chart {
    /// Builds Helm if it is not there yet.
    pub(crate) fn prepare() -> Result<Self> {
        Ok(Self {
            helm: go::build(MODULE, &[HELM])?.join(HELM.name),
            home: workspace::cache("helm")?,
            folder: deploy().join("helm").join("mesh-ca"),
        })
    }

    /// The values that the chart is tried with, by name.
    pub(crate) fn examples(&self) -> Result<Vec<(String, PathBuf)>> {
        let folder = self.folder.join("ci");
        let context = || format!("cannot read {}", folder.display());
        let mut examples = Vec::new();
        for entry in fs::read_dir(&folder).with_context(context)? {
            let path = entry.with_context(context)?.path();
            if let Some(name) = path.file_stem() {
                examples.push((name.to_string_lossy().into_owned(), path));
            }
        }
        examples.sort();
        Ok(examples)
    }

    /// What Helm itself has to say of it, warnings too.
    pub(crate) fn lint(&self, values: &Path) -> Result<()> {
        let mut lint = self.command(&["lint", "--strict", "--quiet"]);
        lint.arg(&self.folder).args(&RELEASE[1..]).arg("--values");
        workspace::output(lint.arg(values))?;
        Ok(())
    }

    /// The manifests for these values.
    pub(crate) fn render(&self, values: &Path) -> Result<String> {
        let mut template = self.command(&["template"]);
        template.args(&RELEASE[..1]).arg(&self.folder);
        template.args(&RELEASE[1..]).arg("--values");
        workspace::output(template.arg(values))
    }

    /// With nothing that this user has set up for other charts.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut helm = workspace::command(&self.helm);
        helm.args(arguments);
        for variable in [
            "HELM_CACHE_HOME",
            "HELM_CONFIG_HOME",
            "HELM_DATA_HOME",
            "HELM_PLUGINS",
        ] {
            helm.env(variable, &self.home);
        }
        helm
    }
}

/// Everything that installs us.
pub(crate) fn deploy() -> PathBuf {
    workspace::root().join("deploy")
}
