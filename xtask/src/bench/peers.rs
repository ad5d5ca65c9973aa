//! The peers in Go: the calls that Istio's CA makes, and Istio's own CA from its module.

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace;

/// What could be built, in the order in which it takes its turns, and what could not.
pub(super) struct Peers {
    pub(super) programs: Vec<PathBuf>,
    pub(super) missing: Vec<&'static str>,
    /// Of Go, if it is there.
    pub(super) go: Option<String>,
}

const ALL: [(&str, &str, &str); 2] = [
    ("peer", "benches/peer", "the calls of Istio's CA"),
    (
        "peer-istio",
        "benches/peer/istio",
        "Istio's own CA, which needs its module and some 60 others",
    ),
];

/// A peer that cannot be built is left out, and the document says so: our own figures do not depend on it.
pub(super) fn build() -> Result<Peers> {
    let folder = workspace::cache("bench")?;
    let go = workspace::output(workspace::command("go").arg("version"));
    let mut peers = Peers {
        programs: Vec::new(),
        missing: Vec::new(),
        go: go.ok().map(|version| version.trim_end().to_owned()),
    };
    for (name, source, what) in ALL {
        println!("building the peer: {what}");
        let program = folder.join(name);
        let mut go = workspace::command("go");
        go.current_dir(workspace::root().join(source))
            .args(["build", "-o"])
            .args([&program])
            .arg(".");
        match workspace::run(&mut go) {
            Ok(()) => peers.programs.push(program),
            Err(error) => {
                eprintln!("left out: {error:#}");
                peers.missing.push(what);
            }
        }
    }
    Ok(peers)
}
