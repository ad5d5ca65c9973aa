//! `codegen`: turns `ca-proto/proto` into the Rust under `ca-proto/src/generated`.
//!
//! The result is committed, so that neither a user nor docs.rs needs a protobuf compiler; with
//! `check` the result is only compared, which keeps the committed files honest.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use prost::Message as _;

/// What is compiled; everything else is imported by these.
const ROOT_FILES: [&str; 6] = [
    "security/v1alpha1/ca.proto",
    "security/v1alpha1/ca_service.proto",
    "spiffe/workload.proto",
    "envoy/service/secret/v3/sds.proto",
    "envoy/extensions/transport_sockets/tls/v3/secret.proto",
    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
];

/// What a server that offers reflection has to describe, with all that they import.
const DESCRIBED_FILES: [&str; 2] = [
    "security/v1alpha1/ca.proto",
    "security/v1alpha1/ca_service.proto",
];
const DESCRIPTORS: &str = "istio.v1.auth.binpb";

/// Messages that hold keys, or pack messages that do. `ca-proto/src/redacted.rs` writes their
/// `Debug` by hand.
const SECRET_MESSAGES: [&str; 9] = [
    ".JWTSVID",
    ".ValidateJWTSVIDRequest",
    ".X509SVID",
    ".envoy.config.core.v3.DataSource",
    ".envoy.config.core.v3.TypedExtensionConfig",
    ".envoy.extensions.transport_sockets.tls.v3.PrivateKeyProvider",
    ".envoy.service.discovery.v3.DiscoveryResponse",
    ".envoy.service.discovery.v3.Resource",
    ".istio.v1.auth.CsrRequest",
];

/// Generates the code, or with `check` fails when the committed code is not what would be generated.
///
/// # Errors
///
/// When a `.proto` file does not compile, a file cannot be read or written, or, with `check`, when
/// a committed file is stale. The message names the file.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ca-proto");
    let committed = package.join("src/generated");
    let fresh = generate(&package.join("proto"))?;
    if check {
        return compare(&committed, &fresh);
    }
    fs::create_dir_all(&committed)?;
    for stale in names_in(&committed)?
        .iter()
        .filter(|name| !fresh.contains_key(*name))
    {
        fs::remove_file(committed.join(stale))?;
    }
    for (name, content) in &fresh {
        let path = committed.join(name);
        // Untouched when equal, so that cargo does not compile the crate again for nothing.
        if fs::read(&path).ok().as_ref() != Some(content) {
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    println!("codegen: {} files in {}", fresh.len(), committed.display());
    Ok(())
}

/// File names and contents, as they should be committed.
fn generate(protos: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let descriptors = protox::compile(ROOT_FILES, [protos])?;
    let out = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .out_dir(out.path())
        .include_file("mod.rs")
        // Without a transport, `ca-proto` compiles against a tonic that has none.
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .skip_debug(SECRET_MESSAGES)
        .compile_fds(descriptors)?;
    let mut files = BTreeMap::new();
    for name in names_in(out.path())? {
        let text = fs::read(out.path().join(&name))?;
        files.insert(name, text);
    }
    let described = protox::compile(DESCRIBED_FILES, [protos])?;
    files.insert(DESCRIPTORS.to_owned(), described.encode_to_vec());
    Ok(files)
}

fn compare(committed: &Path, fresh: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
    let mut wrong: Vec<PathBuf> = names_in(committed)?
        .into_iter()
        .filter(|name| !fresh.contains_key(name))
        .map(|name| committed.join(name))
        .collect();
    for (name, content) in fresh {
        let path = committed.join(name);
        if fs::read(&path).ok().as_ref() != Some(content) {
            wrong.push(path);
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = wrong
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    bail!(
        "generated code is stale, run `cargo xtask codegen`: {}",
        names.join(", ")
    )
}

fn names_in(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", folder.display()));
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
