//! `manifests`: the plain manifests in `deploy/manifests`, which are the chart with some of the values that it is tried with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::chart::{self, Chart};

/// Those that we ship.
const SHIPPED: [&str; 6] = [
    "ca",
    "ca-serving-signer",
    "ca-with-options",
    "registration-cert-manager",
    "registration-cert-manager-approving",
    "registration-kubernetes",
];

const TITLE: &str =
    "# Rendered from the chart in deploy/helm by `cargo xtask manifests`: change it there.\n";

/// Writes them, or only compares.
pub(crate) fn run(check: bool) -> Result<()> {
    let chart = Chart::prepare()?;
    if check {
        return compare(&chart);
    }
    for (path, text) in shipped(&chart)? {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// An error that names what is not as the chart makes it.
pub(crate) fn compare(chart: &Chart) -> Result<()> {
    for (path, text) in shipped(chart)? {
        ensure!(
            fs::read_to_string(&path).is_ok_and(|committed| committed == text),
            "{} is not what the chart makes: `cargo xtask manifests`",
            path.display()
        );
    }
    Ok(())
}

/// All of the chart's examples as files in this folder, and how many there are.
pub(crate) fn render_examples(chart: &Chart, folder: &Path) -> Result<usize> {
    let examples = chart.examples()?;
    for (name, values) in &examples {
        chart.lint(values)?;
        let path = folder.join(format!("{name}.yaml"));
        fs::write(&path, chart.render(values)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(examples.len())
}

fn shipped(chart: &Chart) -> Result<Vec<(PathBuf, String)>> {
    let folder = chart::deploy().join("manifests");
    let examples = chart.examples()?;
    let mut rendered = Vec::new();
    for name in SHIPPED {
        let values = examples.iter().find(|(example, _)| example == name);
        let (_, values) = values.with_context(|| format!("no values for {name}"))?;
        let text = format!("{TITLE}{}", chart.render(values)?);
        rendered.push((folder.join(format!("{name}.yaml")), text));
    }
    Ok(rendered)
}
