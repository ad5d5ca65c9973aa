//! kube-apiserver and etcd, built or brought along, and the kinds of others that are installed in them.

mod crds;

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Where both are.
#[derive(clap::Args)]
pub(crate) struct ControlPlaneArgs {
    /// A folder with kube-apiserver and etcd, instead of building them.
    #[arg(long, env = "KUBEBUILDER_ASSETS", value_name = "FOLDER")]
    kubernetes_assets: Option<PathBuf>,
}

/// For programs that start one.
pub(crate) struct ControlPlane {
    assets: PathBuf,
    cert_manager: PathBuf,
    prometheus_operator: PathBuf,
}

impl ControlPlane {
    /// Finds everything; what nobody has brought along is made here, once.
    pub(crate) fn find(args: &ControlPlaneArgs) -> Result<Self> {
        Ok(Self {
            assets: args.assets()?,
            cert_manager: crds::cert_manager()?,
            prometheus_operator: crds::prometheus_operator()?,
        })
    }

    /// Tells a program where everything is.
    pub(crate) fn show_to<'a>(&self, program: &'a mut Command) -> &'a mut Command {
        program
            .env("KUBEBUILDER_ASSETS", &self.assets)
            .env("CERT_MANAGER_CRDS", &self.cert_manager)
            .env("PROMETHEUS_OPERATOR_CRDS", &self.prometheus_operator)
    }

    /// Where both programs are.
    pub(crate) fn folder(&self) -> &Path {
        &self.assets
    }

    /// Of the API server, as it tells it.
    pub(crate) fn version(&self) -> Result<String> {
        let mut api_server = workspace::command(self.assets.join("kube-apiserver"));
        let told = workspace::output(api_server.arg("--version"))?;
        Ok(told.trim().to_owned())
    }
}

impl ControlPlaneArgs {
    fn assets(&self) -> Result<PathBuf> {
        let Some(folder) = &self.kubernetes_assets else {
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
}
