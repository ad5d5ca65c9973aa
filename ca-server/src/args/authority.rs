//! What was typed about a CA above this one.

use std::path::PathBuf;
use std::time::Duration;

use ca_core::{KeyKind, parse_duration};
use ca_ra::UpstreamAddress;

/// A CA above this one.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Upstream CA")]
pub(crate) struct AuthorityArgs {
    /// Be a CA below the mesh-ca at this address: the key is made here, and certified there.
    #[arg(
        long,
        value_name = "HOST:PORT",
        alias = "upstream-ca-address",
        conflicts_with = "upstream_ca_drop"
    )]
    pub(crate) upstream_ca_addr: Option<UpstreamAddress>,

    /// Roots (PEM) that its server is verified with; followed.
    #[arg(long, value_name = "FILE", requires = "upstream_ca_addr")]
    pub(crate) upstream_ca_root: Option<PathBuf>,

    /// The token to show there; read at each use.
    #[arg(
        long,
        value_name = "FILE",
        requires = "upstream_ca_addr",
        conflicts_with = "upstream_ca_client_cert"
    )]
    pub(crate) upstream_ca_token_file: Option<PathBuf>,

    /// The client certificate (PEM, leaf first) to show there instead of a token; followed.
    #[arg(
        long,
        value_name = "FILE",
        requires = "upstream_ca_addr",
        requires = "upstream_ca_client_key"
    )]
    pub(crate) upstream_ca_client_cert: Option<PathBuf>,

    /// Its key.
    #[arg(long, value_name = "FILE", requires = "upstream_ca_client_cert")]
    pub(crate) upstream_ca_client_key: Option<PathBuf>,

    /// The lifetime to ask for. The certificate is renewed when half of its life is left.
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = parse_duration)]
    pub(crate) upstream_ca_ttl: Duration,

    /// The kind of the keys that are made here, one at each renewal.
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    pub(crate) upstream_ca_key_kind: CaKeyKind,

    /// How often to look whether the upstream's roots have changed.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub(crate) upstream_ca_check_interval: Duration,

    /// Be a CA below one that cannot be asked: put `ca.csr` into this folder, and wait there for `ca-cert.pem`,
    /// `root-cert.pem` and, where there are more CAs in between, `cert-chain.pem`.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) upstream_ca_drop: Option<PathBuf>,
}

/// What a CA of the mesh can sign with. Not Ed25519: Envoy could not check it.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum CaKeyKind {
    #[default]
    EcdsaP256,
    EcdsaP384,
    #[value(name = "rsa-2048")]
    Rsa2048,
    #[value(name = "rsa-3072")]
    Rsa3072,
    #[value(name = "rsa-4096")]
    Rsa4096,
}

impl From<CaKeyKind> for KeyKind {
    fn from(kind: CaKeyKind) -> Self {
        match kind {
            CaKeyKind::EcdsaP256 => Self::EcdsaP256,
            CaKeyKind::EcdsaP384 => Self::EcdsaP384,
            CaKeyKind::Rsa2048 => Self::Rsa2048,
            CaKeyKind::Rsa3072 => Self::Rsa3072,
            CaKeyKind::Rsa4096 => Self::Rsa4096,
        }
    }
}
