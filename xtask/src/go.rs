//! Partners that come as Go modules, built by package name into a cache folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// A program of a module in `xtask/go/`.
pub(crate) struct Program {
    /// What it is called here.
    pub(crate) name: &'static str,
    /// The package of its `main`.
    pub(crate) package: &'static str,
    /// What the linker writes into it, as `-X` takes it.
    pub(crate) stamps: &'static [&'static str],
}

/// The folder that has these programs, built as the module `xtask/go/<module>` pins them. A first build downloads and compiles, for
/// minutes; later ones are there already.
pub(crate) fn build(module: &str, programs: &[Program]) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("go")
        .join(module);
    let folder = workspace::cache("go")?.join(module);
    let mut wanted = workspace::output(&mut go(&source, &["version"])?)?;
    for file in ["go.mod", "go.sum"] {
        let path = source.join(file);
        wanted += &fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    for program in programs {
        wanted += &format!(
            "{} {} {:?}\n",
            program.name, program.package, program.stamps
        );
    }
    // Written last, so that an interrupted build is not taken for a finished one.
    let marker = folder.join("built");
    if fs::read_to_string(&marker).is_ok_and(|built| built == wanted) {
        return Ok(folder);
    }
    let start = Instant::now();
    for program in programs {
        println!(
            "building {} with Go (once; minutes, the first time)",
            program.name
        );
        build_program(&source, program, &folder)?;
    }
    fs::write(&marker, wanted).with_context(|| format!("cannot write {}", marker.display()))?;
    println!("built in {} s", start.elapsed().as_secs());
    Ok(folder)
}

fn build_program(source: &Path, program: &Program, folder: &Path) -> Result<()> {
    let mut linker = "-s -w".to_owned();
    for stamp in program.stamps {
        linker += &format!(" -X {stamp}");
    }
    let mut build = go(
        source,
        &["build", "-mod=readonly", "-trimpath", "-buildvcs=false"],
    )?;
    build
        .args(["-ldflags", &linker])
        .arg("-o")
        .arg(folder.join(program.name))
        .arg(program.package)
        // No C compiler, and programs that run anywhere.
        .env("CGO_ENABLED", "0");
    // Not captured: it tells what it downloads, which takes a while.
    workspace::run(&mut build)
}

/// The folder of a published module's files, which are what `sum` says they are.
pub(crate) fn files(module: &str, version: &str, sum: &str) -> Result<PathBuf> {
    let wanted = format!("{module}@{version}");
    let json = workspace::output(&mut go(
        workspace::root(),
        &["mod", "download", "-json", &wanted],
    )?)?;
    let told: Value = serde_json::from_str(&json).context("go mod download printed no JSON")?;
    ensure!(
        told["Sum"] == sum,
        "{wanted} has another checksum: {}",
        told["Sum"]
    );
    let folder = told["Dir"].as_str();
    Ok(folder.context("go mod download names no folder")?.into())
}

/// Go itself, in this folder, and nothing of what the user has set up for other work.
fn go(folder: &Path, arguments: &[&str]) -> Result<Command> {
    let mut go = workspace::command("go");
    go.current_dir(folder)
        .args(arguments)
        .env("GOFLAGS", "")
        .env("GOWORK", "off");
    ensure!(
        workspace::output(workspace::command("go").arg("version")).is_ok(),
        "Go 1.26 or newer is needed (Debian: golang-go)"
    );
    Ok(go)
}
