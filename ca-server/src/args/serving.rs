//! What was typed about our own certificates, and about the listeners beside the one for certificate requests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ca_core::{IdentityError, SubjectName, parse_duration};

use super::value;
use crate::serving::MinVersion;

/// Our own certificates, and the listeners that show them.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Serving")]
pub(crate) struct ServingArgs {
    /// Where the certificates of the listeners come from: `istiod` (whoever signs for workloads), `k8s.io/DOMAIN/NAME` (that signer
    /// of the cluster), `kubernetes` (the signer of --k8s-signer), `custom` (files) or `none`. Files that are named, or in
    /// ./var/run/secrets/istiod, win over all but `custom`.
    #[arg(
        long,
        env = "PILOT_CERT_PROVIDER",
        value_name = "PROVIDER",
        default_value = "istiod"
    )]
    pub(crate) cert_provider: String,

    /// File with the roots of --tls-cert-file; all three or none. Clients with certificates below these roots are believed too.
    #[arg(long, visible_alias = "caCertFile", value_name = "FILE")]
    pub(crate) ca_cert_file: Option<PathBuf>,

    /// File with the certificate of the listeners and those between it and a root; followed.
    #[arg(long, visible_alias = "tlsCertFile", value_name = "FILE")]
    pub(crate) tls_cert_file: Option<PathBuf>,

    /// File with its key.
    #[arg(long, visible_alias = "tlsKeyFile", value_name = "FILE")]
    pub(crate) tls_key_file: Option<PathBuf>,

    /// More names for the server's own certificates.
    #[arg(
        long,
        env = "ISTIOD_CUSTOM_HOST",
        value_name = "NAME,...",
        value_delimiter = ','
    )]
    pub(crate) dns_names: Vec<String>,

    /// The namespace that this server runs in. With it the certificates have istiod's names in that namespace; without, those
    /// of this machine: localhost, the loopback addresses and the address of the listener.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,

    /// The revision of the control plane, which is one more name.
    #[arg(long, env = "REVISION", value_name = "REVISION")]
    pub(crate) revision: Option<String>,

    /// Where proxies look for the control plane, which is one more name.
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "istiod.istio-system.svc:15012"
    )]
    pub(crate) discovery_address: String,

    /// Lifetime of a serving certificate that is made here; it is renewed at half of it.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub(crate) serving_cert_ttl: Duration,

    /// Folder to write the serving certificates to: <name>/key.pem, cert-chain.pem and root-cert.pem.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) serving_certs_dir: Option<PathBuf>,

    /// One more certificate of this CA, for a program beside this one: made, renewed and written to --serving-certs-dir. May be
    /// given several times.
    #[arg(long, value_name = "NAME=HOST,...", requires = "serving_certs_dir", value_parser = named_hosts)]
    pub(crate) serving_cert: Vec<NamedHosts>,

    /// Address of the HTTPS endpoint for webhooks. Port 0 takes a free one. Default: no such listener.
    #[arg(long, value_name = "ADDRESS", value_parser = value::address)]
    pub(crate) webhook_listen: Option<SocketAddr>,

    /// Address for DNS over TLS. Port 0 takes a free one. Default: no such listener.
    #[arg(long, value_name = "ADDRESS", requires = "dns_upstream", value_parser = value::address)]
    pub(crate) dns_listen: Option<SocketAddr>,

    /// The resolver that answers DNS questions, over UDP and TCP.
    #[arg(long, value_name = "ADDRESS", requires = "dns_listen", value_parser = value::address)]
    pub(crate) dns_upstream: Option<SocketAddr>,

    /// Narrow what TLS offers on all listeners: `fips-140-2`, `fips-140-3` or `pqc`.
    #[arg(long, env = "COMPLIANCE_POLICY", value_name = "POLICY")]
    pub(crate) compliance_policy: Option<String>,

    /// The oldest version of TLS.
    #[arg(long, value_name = "VERSION", default_value = "1.2")]
    pub(crate) tls_min_version: MinVersion,

    /// Cipher suites of TLS 1.2, by their standard names. Default: all that are good. Those of TLS 1.3 are not chosen.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) tls_cipher_suites: Vec<String>,
}

/// What a certificate is called, and whom it names.
#[derive(Clone, Debug)]
pub(crate) struct NamedHosts {
    pub(crate) name: String,
    pub(crate) hosts: Vec<SubjectName>,
}

fn named_hosts(text: &str) -> Result<NamedHosts, String> {
    // It becomes the name of a folder.
    let is_good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let parts = text.split_once('=');
    let parts = parts.filter(|(name, _)| !name.is_empty() && name.bytes().all(is_good));
    let (name, hosts) =
        parts.ok_or("not NAME=HOST,... with a name of letters, digits and hyphens")?;
    let hosts = hosts.split(',').map(|host| host.trim().parse());
    let hosts: Result<_, IdentityError> = hosts.collect();
    Ok(NamedHosts {
        name: name.into(),
        hosts: hosts.map_err(|error| error.to_string())?,
    })
}
