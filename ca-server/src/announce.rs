//! What the server says on its standard output when it is up.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use ca_core::{Certificate, SubjectName, TrustDomain};

use crate::report::shown;

/// The first screen of a new operator: where everything is, and what to type next.
pub(crate) struct Announcement<'a> {
    pub(crate) trust_domain: &'a TrustDomain,
    pub(crate) serving: SocketAddr,
    /// What the listener for certificate requests shows; `None` if it refuses every connection.
    pub(crate) serving_certificate: Option<&'a Certificate>,
    /// What that is verified with.
    pub(crate) serving_roots: ServingRoots<'a>,
    pub(crate) admin: SocketAddr,
    pub(crate) webhook: Option<SocketAddr>,
    pub(crate) dns: Option<SocketAddr>,
    pub(crate) data_dir: &'a Path,
    pub(crate) root_file: &'a Path,
    pub(crate) root: &'a Certificate,
    pub(crate) local_tokens: bool,
    pub(crate) programs: Programs,
}

/// Where an agent finds the roots of the certificate that it is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ServingRoots<'a> {
    File(&'a Path),
    /// Those of this signer of the cluster. We have no file with them.
    Signer(&'a str),
}

/// How the programs are called by whoever has started this one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Programs {
    Installed,
    /// In a checkout, where they are perhaps not even built.
    RunByCargo,
}

impl Programs {
    /// By what `cargo run` tells its children.
    #[expect(
        clippy::disallowed_methods,
        reason = "not configuration: it decides about a hint on the screen alone"
    )]
    pub(crate) fn of_this_process() -> Self {
        match std::env::var_os("CARGO_MANIFEST_DIR") {
            Some(_) => Self::RunByCargo,
            None => Self::Installed,
        }
    }

    fn call(self, name: &str) -> String {
        match self {
            Self::Installed => name.into(),
            Self::RunByCargo => format!("cargo run --release --bin {name} --"),
        }
    }
}

impl fmt::Display for Announcement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expires = shown(self.root.not_after());
        let root_file = self.root_file.display();
        writeln!(f, "mesh-ca ca-server {}", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "trust domain       {}", self.trust_domain)?;
        writeln!(f, "serving            {}", self.serving)?;
        writeln!(f, "admin              {}", self.admin)?;
        if let Some(webhook) = self.webhook {
            writeln!(f, "webhook            {webhook}")?;
        }
        if let Some(dns) = self.dns {
            writeln!(f, "DNS over TLS       {dns}")?;
        }
        writeln!(f, "root certificate   {root_file}")?;
        writeln!(f, "root fingerprint   SHA-256 {}", self.root.fingerprint())?;
        writeln!(f, "root expires       {expires}\n")?;
        match self.serving_certificate {
            Some(certificate) => self.next(f, certificate),
            None => writeln!(
                f,
                "There is no certificate to serve with: every connection is refused."
            ),
        }
    }
}

impl Announcement<'_> {
    /// What to type next.
    fn next(&self, f: &mut fmt::Formatter<'_>, certificate: &Certificate) -> fmt::Result {
        let (roots, where_from) = match self.serving_roots {
            ServingRoots::File(path) => (path.display().to_string(), String::new()),
            ServingRoots::Signer(signer) => (
                "ROOTS".into(),
                format!(", and ROOTS, a file with the roots of the signer {signer}"),
            ),
        };
        let agent = format!(
            "{} --ca-addr {} --ca-root {roots}",
            self.programs.call("sds-agent"),
            reached_at(self.serving, certificate.names()),
        );
        let workload = "--namespace demo --service-account web";
        if self.local_tokens {
            let server = self.programs.call("ca-server");
            let data_dir = self.data_dir.display();
            writeln!(
                f,
                "Next, in another terminal: give the workload demo/web a certificate{where_from}.\n\n  \
                 {server} token --data-dir {data_dir} {workload} > web.token && \
                 {agent} --token-file web.token {workload} --output-dir ./web-certs"
            )
        } else {
            writeln!(
                f,
                "Next, where the workload runs, with a token of your issuer{where_from}:\n\n  {agent} --token-file TOKEN {workload}"
            )
        }
    }
}

/// An address that is ours by the certificate: the listener's own, else this machine, else the first host that is named.
fn reached_at(listener: SocketAddr, names: &[SubjectName]) -> String {
    let port = listener.port();
    let own = SubjectName::Ip(listener.ip());
    if names.contains(&own) {
        return listener.to_string();
    }
    let hosts = names.iter().filter_map(|name| match name {
        SubjectName::Dns(host) => Some(host.to_string()).filter(|host| !host.contains('*')),
        _ => None,
    });
    let hosts: Vec<String> = hosts.collect();
    let local = hosts.iter().find(|host| *host == "localhost");
    // What all agents of a mesh are told, before what a revision or a person has added.
    let istiod = || hosts.iter().find(|host| host.starts_with("istiod."));
    let address = names.iter().find_map(|name| match name {
        SubjectName::Ip(address) => Some(SocketAddr::new(*address, port).to_string()),
        _ => None,
    });
    match (local.or_else(istiod).or(hosts.first()), address) {
        (Some(host), _) => format!("{host}:{port}"),
        (None, Some(address)) => address,
        (None, None) => format!("HOST:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ca_core::testing::{TestCa, now};

    use super::*;

    fn said(
        listener: &str,
        names: &[&str],
        serving_roots: ServingRoots<'_>,
        programs: Programs,
    ) -> String {
        let ca = TestCa::new("cluster.local");
        let names: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
        let roots = ca.roots();
        let mesh = "cluster.local".parse().unwrap();
        let (_, chain) = ca.identity(&names, Duration::from_secs(60), now());
        let announcement = Announcement {
            trust_domain: &mesh,
            serving: listener.parse().unwrap(),
            serving_certificate: Some(chain.leaf()),
            serving_roots,
            admin: "127.0.0.1:2".parse().unwrap(),
            webhook: None,
            dns: None,
            data_dir: Path::new("data"),
            root_file: Path::new("data/root-cert.pem"),
            root: &roots.certificates()[0],
            local_tokens: true,
            programs,
        };
        announcement.to_string()
    }

    #[test]
    fn the_next_line_names_an_address_that_the_certificate_has_and_the_roots_of_it() {
        let own = ServingRoots::File(Path::new("data/root-cert.pem"));
        let machine = ["localhost", "127.0.0.1", "::1"];
        for (listener, names, address) in [
            ("127.0.0.1:1", &machine[..], "127.0.0.1:1"),
            ("0.0.0.0:1", &machine, "localhost:1"),
            ("[::]:1", &machine, "localhost:1"),
            (
                "0.0.0.0:1",
                &["a.mesh.svc", "istiod.mesh.svc"],
                "istiod.mesh.svc:1",
            ),
            ("0.0.0.0:1", &["*.mesh.svc", "ca.mesh.svc"], "ca.mesh.svc:1"),
            ("0.0.0.0:1", &["10.0.0.1"], "10.0.0.1:1"),
            ("0.0.0.0:1", &["spiffe://a/ns/b/sa/c"], "HOST:1"),
        ] {
            let said = said(listener, names, own, Programs::Installed);
            let agent = format!("&& sds-agent --ca-addr {address} --ca-root data/root-cert.pem ");
            assert!(said.contains(&agent), "no {agent:?} in {said}");
        }
        let files = ServingRoots::File(Path::new("ca.crt"));
        let said_of = |roots| said("127.0.0.1:1", &machine, roots, Programs::Installed);
        assert!(said_of(files).contains(" --ca-root ca.crt "));
        let signer = said_of(ServingRoots::Signer("example.com/x"));
        for part in [
            " --ca-root ROOTS ",
            "ROOTS, a file with the roots of the signer example.com/x",
        ] {
            assert!(signer.contains(part), "no {part:?} in {signer}");
        }
    }

    #[test]
    fn the_programs_are_called_as_this_one_was() {
        let roots = ServingRoots::File(Path::new("r"));
        let installed = said("127.0.0.1:1", &["127.0.0.1"], roots, Programs::Installed);
        assert!(installed.contains("\n  ca-server token "), "{installed}");
        assert!(!installed.contains("cargo"), "{installed}");
        let run = said("127.0.0.1:1", &["127.0.0.1"], roots, Programs::RunByCargo);
        for call in [
            "\n  cargo run --release --bin ca-server -- token ",
            "&& cargo run --release --bin sds-agent -- --ca-addr ",
        ] {
            assert!(run.contains(call), "no {call:?} in {run}");
        }
    }
}
