//! Who may import whom. `ARCHITECTURE.md` has the picture; this is the list that is checked.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// Every crate of ours, and which of ours it may import. Development dependencies are left out,
/// except where `dev` says that they count too.
const OURS: [Member; 8] = [
    Member {
        name: "ca-core",
        may_import: &[],
    },
    Member {
        name: "ca-proto",
        may_import: &[],
    },
    Member {
        name: "ca-auth",
        may_import: &["ca-core"],
    },
    Member {
        name: "ca-ra",
        may_import: &["ca-core", "ca-proto"],
    },
    Member {
        name: "ca-server",
        may_import: &["ca-auth", "ca-core", "ca-proto", "ca-ra"],
    },
    Member {
        name: "sds-agent",
        may_import: &["ca-core", "ca-proto"],
    },
    Member {
        name: "benches",
        may_import: &[
            "ca-auth",
            "ca-core",
            "ca-proto",
            "ca-ra",
            "ca-server",
            "sds-agent",
        ],
    },
    Member {
        name: "xtask",
        may_import: &[],
    },
];

struct Member {
    name: &'static str,
    may_import: &'static [&'static str],
}

/// What a crate must not name in its manifest, not even as an option.
const NOT_DECLARED: [Ban; 3] = [
    Ban {
        name: "ca-core",
        banned: &["kube", "k8s-openapi", "tonic", "prost", "clap"],
        because: "crypto and policy stay testable in microseconds and embeddable anywhere",
    },
    Ban {
        name: "ca-auth",
        banned: &["tonic", "prost"],
        because: "it judges plain evidence, not requests",
    },
    Ban {
        name: "ca-proto",
        banned: &["tokio", "anyhow", "thiserror", "tracing"],
        because: "generated code is a leaf without logic of its own",
    },
];

/// What must not be anywhere below a crate, with its default features.
const NOT_IN_TREE: [Ban; 4] = [
    Ban {
        name: "ca-core",
        banned: &["tokio", "tonic", "prost", "clap", "kube", "rustls", "hyper"],
        because: "without features it is keys, certificates and policy: no runtime, no sockets",
    },
    Ban {
        name: "ca-auth",
        banned: &["tonic", "prost", "hyper"],
        because: "whoever embeds it brings a transport of their own",
    },
    Ban {
        name: "ca-ra",
        banned: &["tokio", "tonic", "prost", "rustls", "hyper"],
        because: "screening needs no network; each signer that does is a feature",
    },
    Ban {
        name: "sds-agent",
        banned: &[
            "aws-lc-rs",
            "aws-lc-sys",
            "kube",
            "axum",
            "openssl-sys",
            "native-tls",
        ],
        because: "it ships into every pod: one cryptography provider, one HTTP stack, small",
    },
];

struct Ban {
    name: &'static str,
    banned: &'static [&'static str],
    because: &'static str,
}

pub(super) fn check() -> Result<()> {
    let mut faults = declared_faults(&workspace::metadata()?)?;
    for ban in &NOT_IN_TREE {
        faults.extend(ban.faults("has in its tree", &tree(ban.name)?));
    }
    ensure!(faults.is_empty(), "\n  {}", faults.join("\n  "));
    println!("{} members import only what they may", OURS.len());
    Ok(())
}

fn declared_faults(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let mut declared = BTreeMap::new();
    for package in packages {
        declared.insert(text(&package["name"]), imports(package));
    }
    let mut faults = Vec::new();
    for (name, imports) in &declared {
        let Some(member) = OURS.iter().find(|member| member.name == name) else {
            faults.push(format!(
                "{name} is new: say in this file what it may import"
            ));
            continue;
        };
        for import in imports {
            let ours = declared.contains_key(import);
            if ours && !member.may_import.contains(&import.as_str()) {
                faults.push(format!("{name} imports {import}"));
            }
        }
    }
    for ban in &NOT_DECLARED {
        let imports = declared
            .get(ban.name)
            .with_context(|| format!("no member {}", ban.name))?;
        faults.extend(ban.faults("declares", imports));
    }
    Ok(faults)
}

/// Normal and build dependencies, optional ones too. Tests may use more, so that `sds-agent` can be
/// tested against `ca-server`; but nothing of ours may lead to the tools, not even from tests.
fn imports(package: &Value) -> BTreeSet<String> {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies
        .filter(|dependency| {
            let is_tool = matches!(dependency["name"].as_str(), Some("benches" | "xtask"));
            is_tool || dependency["kind"].as_str() != Some("dev")
        })
        .map(|dependency| text(&dependency["name"]))
        .collect()
}

/// The names of all crates below this one, built alone and with its default features.
fn tree(name: &str) -> Result<BTreeSet<String>> {
    let arguments = [
        "tree",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let lines = workspace::output(workspace::cargo(&arguments).args(["--package", name]))?;
    Ok(lines
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Ban {
    fn faults(&self, has: &str, found: &BTreeSet<String>) -> Vec<String> {
        let Self {
            name,
            banned,
            because,
        } = self;
        let present = banned.iter().filter(|banned| found.contains(**banned));
        present
            .map(|banned| format!("{name} {has} {banned}: {because}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workspace_where(name: &str, import: &Value) -> Value {
        let packages: Vec<_> = OURS
            .iter()
            .map(|member| {
                let imports = if member.name == name {
                    vec![import.clone()]
                } else {
                    vec![]
                };
                json!({ "name": member.name, "dependencies": imports })
            })
            .collect();
        json!({ "packages": packages })
    }

    #[test]
    fn a_forbidden_edge_is_found() {
        let import = json!({ "name": "ca-auth", "kind": null });
        let faults = declared_faults(&workspace_where("ca-ra", &import)).unwrap();
        assert_eq!(faults, ["ca-ra imports ca-auth"]);
    }

    #[test]
    fn a_banned_crate_is_found_even_when_optional() {
        let import = json!({ "name": "tonic", "kind": null, "optional": true });
        let faults = declared_faults(&workspace_where("ca-core", &import)).unwrap();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("ca-core declares tonic"));
    }

    #[test]
    fn tests_may_use_more_but_not_the_tools() {
        let import = json!({ "name": "ca-server", "kind": "dev" });
        let faults = declared_faults(&workspace_where("sds-agent", &import)).unwrap();
        assert_eq!(faults, [""; 0]);
        let import = json!({ "name": "xtask", "kind": "dev" });
        let faults = declared_faults(&workspace_where("sds-agent", &import)).unwrap();
        assert_eq!(faults, ["sds-agent imports xtask"]);
    }
}
