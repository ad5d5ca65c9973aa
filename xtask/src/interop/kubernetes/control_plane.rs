//! kube-apiserver and etcd.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::go::{self, Program};
use crate::workspace;

const MODULE: &str = "control-plane";

const PROGRAMS: [Program; 2] = [
    Program {
        name: "kube-apiserver",
        package: "k8s.io/kubernetes/cmd/kube-apiserver",
        // Clients read these numbers; a build by hand has none. They are those of the module.
        stamps: &[
            "k8s.io/component-base/version.gitVersion=v1.36.3",
            "k8s.io/component-base/version.gitMajor=1",
            "k8s.io/component-base/version.gitMinor=36",
        ],
    },
    Program {
        name: "etcd",
        package: "go.etcd.io/etcd/server/v3",
        stamps: &[],
    },
];

/// The folder that has both: the given one, or one that is made here, once.
pub(super) fn find(given: Option<&Path>) -> Result<PathBuf> {
    let Some(folder) = given else {
        return go::build(MODULE, &PROGRAMS);
    };
    for Program { name, .. } in &PROGRAMS {
        ensure!(
            folder.join(name).is_file(),
            "no {name} in {}",
            folder.display()
        );
    }
    // The tests run elsewhere than we do.
    Ok(folder.canonicalize()?)
}

/// As it tells it.
pub(super) fn version(folder: &Path) -> Result<String> {
    let told =
        workspace::output(workspace::command(folder.join("kube-apiserver")).arg("--version"))?;
    Ok(told.trim().to_owned())
}
