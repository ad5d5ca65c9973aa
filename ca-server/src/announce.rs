//! What the server says on its standard output when it is up.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use ca_core::{Certificate, TrustDomain};
use time::format_description::well_known::Rfc3339;

/// The first screen of a new operator: where everything is, and what to type next.
pub(crate) struct Announcement<'a> {
    pub(crate) trust_domain: &'a TrustDomain,
    pub(crate) serving: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) webhook: Option<SocketAddr>,
    pub(crate) dns: Option<SocketAddr>,
    pub(crate) data_dir: &'a Path,
    pub(crate) root_file: &'a Path,
    pub(crate) root: &'a Certificate,
    pub(crate) local_tokens: bool,
}

impl fmt::Display for Announcement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expires = self
            .root
            .not_after()
            .format(&Rfc3339)
            .map_err(|_| fmt::Error)?;
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
        writeln!(f, "root expires       {expires}")?;
        let agent = format!(
            "cargo run --release --bin sds-agent -- --ca-addr {} --ca-root {root_file}",
            self.serving
        );
        let workload = "--namespace demo --service-account web";
        if self.local_tokens {
            let data_dir = self.data_dir.display();
            write!(
                f,
                "\nNext, in another terminal: give the workload demo/web a certificate.\n\n  \
                 cargo run --release --bin ca-server -- token --data-dir {data_dir} {workload} > web.token && \
                 {agent} --token-file web.token {workload} --output-dir ./web-certs\n"
            )
        } else {
            write!(
                f,
                "\nNext, where the workload runs, with a token of your issuer:\n\n  {agent} --token-file TOKEN {workload}\n"
            )
        }
    }
}
