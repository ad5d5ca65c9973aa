//! Can the published crates be packaged, and do they build from what is in the package?

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// In the order in which they would be published.
const PUBLISHED: [&str; 6] = [
    "ca-core",
    "ca-proto",
    "ca-auth",
    "ca-ra",
    "ca-server",
    "sds-agent",
];

/// Those that strangers build: the programs are packed, and their builds are those of the tests.
const LIBRARIES: [&str; 4] = ["ca-core", "ca-proto", "ca-auth", "ca-ra"];

/// What a registry page needs, and that nothing else can be published.
pub(super) fn metadata() -> Result<()> {
    let metadata = workspace::metadata()?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        if !PUBLISHED.contains(&name) {
            if package["publish"]
                .as_array()
                .is_none_or(|registries| !registries.is_empty())
            {
                faults.push(format!(
                    "{name} is not to be published and lacks `publish = false`"
                ));
            }
            continue;
        }
        for key in ["description", "license", "readme", "rust_version"] {
            if !package[key].is_string() {
                faults.push(format!("{name} has no {key}"));
            }
        }
    }
    ensure!(faults.is_empty(), "\n  {}", faults.join("\n  "));
    println!("{} crates say what a registry page needs", PUBLISHED.len());
    Ok(())
}

/// `cargo package` packs each crate, and builds the libraries from their packages.
pub(super) fn build() -> Result<()> {
    forget_earlier_packages()?;
    pack(&PUBLISHED, &["--no-verify"])?;
    pack(&LIBRARIES, &[])
}

fn pack(names: &[&str], flags: &[&str]) -> Result<()> {
    let mut package = workspace::cargo(&["package", "--locked"]);
    package.args(flags);
    for name in names {
        package.args(["--package", name]);
    }
    // The profile of the workspace, which an unpacked crate does not see: so it finds what the other
    // checks have compiled, and does not compile every dependency a second time.
    package
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .env("CARGO_PROFILE_DEV_BUILD_OVERRIDE_DEBUG", "false");
    // A developer looks at a change before it is committed; what is checked in CI is a commit.
    if !in_ci() {
        package.arg("--allow-dirty");
    }
    workspace::run(&mut package)
}

/// cargo unpacks siblings that are not published yet into its registry cache and finds them there
/// again for as long as the version is the same: dependants would be built against old code.
fn forget_earlier_packages() -> Result<()> {
    let Some(sources) = cargo_home().map(|home| home.join("registry").join("src")) else {
        return Ok(());
    };
    let Ok(registries) = fs::read_dir(&sources) else {
        return Ok(());
    };
    for registry in registries.flatten() {
        // The name of a registry that has no host, only a folder.
        if !registry.file_name().to_string_lossy().starts_with('-') {
            continue;
        }
        for package in fs::read_dir(registry.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = package.file_name();
            let name = name.to_string_lossy();
            if PUBLISHED
                .iter()
                .any(|ours| name.strip_prefix(ours).is_some_and(is_version))
            {
                fs::remove_dir_all(package.path())
                    .with_context(|| format!("cannot remove {}", package.path().display()))?;
            }
        }
    }
    Ok(())
}

/// `-0.1.0`
fn is_version(rest: &str) -> bool {
    rest.strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells nobody where its home is"
)]
fn cargo_home() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the convention by which CI says that it is CI"
)]
fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}
