//! Definitions of the partners' kinds, from the modules that the partners publish.

use std::path::PathBuf;

use anyhow::Result;

use crate::go;

/// A folder of YAML.
pub(super) fn cert_manager() -> Result<PathBuf> {
    let folder = go::files(
        "github.com/cert-manager/cert-manager",
        "v1.21.2",
        "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
    )?;
    Ok(folder.join("deploy").join("crds"))
}

/// The same.
pub(super) fn prometheus_operator() -> Result<PathBuf> {
    let folder = go::files(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
    )?;
    Ok(folder.join("example").join("prometheus-operator-crd"))
}
