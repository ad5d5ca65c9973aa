//! `interop certificates`: one certificate of every kind that ca-core issues, judged by those who did not write it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{linters, openssl};
use crate::lab::Lab;
use crate::workspace;

pub(crate) fn run() -> Result<()> {
    println!("\ncertificates: one of every kind, judged by OpenSSL and linters");
    Lab::run("interop-certificates", |lab| {
        let folder = lab.path("issued");
        fs::create_dir(&folder).context("cannot make a folder for certificates")?;
        let example = [
            "run",
            "--quiet",
            "--package",
            "ca-core",
            "--example",
            "every_kind",
        ];
        let features = ["--features", "aws-lc-rs,testing", "--"];
        workspace::output(workspace::cargo(&[&example[..], &features].concat()).arg(&folder))?;

        let mut certificates = Vec::new();
        for leaf in files_ending_with(&folder, ".leaf.pem")? {
            let name = leaf.to_string_lossy().replace(".leaf.pem", "");
            let (chain, root) = (format!("{name}.chain.pem"), format!("{name}.root.pem"));
            // Below a root there is nothing in between, and OpenSSL takes no empty file for that.
            let has_chain = fs::metadata(&chain).is_ok_and(|file| file.len() > 0);
            let between = if has_chain { &chain } else { &root };
            openssl::verify(&leaf, Path::new(between), Path::new(&root))?;
            certificates.extend([leaf, PathBuf::from(&root)]);
            certificates.extend(has_chain.then(|| PathBuf::from(&chain)));
        }
        ensure!(
            certificates.len() >= 64,
            "only {} certificates were issued",
            certificates.len()
        );
        println!("  OpenSSL accepts every path, for servers and for clients");
        linters::check(&certificates)
    })?;
    println!("certificates: passed");
    Ok(())
}

fn files_ending_with(folder: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).context("cannot read the folder of certificates")?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .context("cannot read the folder of certificates")?
            .path();
        let fits = path
            .file_name()
            .and_then(OsStr::to_str)
            .is_some_and(|name| name.ends_with(end));
        files.extend(fits.then_some(path));
    }
    files.sort();
    Ok(files)
}
