//! What was typed about a caller that is to be judged without a server.

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ca_core::parse_duration;
use clap::ArgGroup;

use super::value;

/// What a caller would show, and ask for. Flags of the server stand before the verb.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("shown").args(["token", "cert", "header"]).required(true).multiple(true))]
pub struct ExplainArgs {
    /// Its token, in a file; `@-` for standard input.
    #[arg(long, value_name = "@FILE", value_parser = token_place)]
    pub(crate) token: Option<TokenPlace>,

    /// Its certificate with intermediates (PEM), as if it had connected with them.
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,

    /// The identity that it asks for instead of its own.
    #[arg(long, value_name = "ID")]
    pub(crate) impersonate: Option<String>,

    /// A header of its request: x-forwarded-client-cert or clusterid.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) header: Vec<Header>,

    /// The address that it connects from.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = value::ip_address)]
    pub(crate) peer: IpAddr,

    /// The lifetime that it asks for.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) ttl: Option<Duration>,
}

/// Where a token is. Words of a command line are seen by everybody on the machine: a token is none.
#[derive(Clone, Debug)]
pub(crate) enum TokenPlace {
    File(PathBuf),
    /// Here. It is refused later, because the parser of flags would print what it refuses.
    Typed,
}

/// A header that is looked at.
#[derive(Clone, Debug)]
pub(crate) enum Header {
    ForwardedCertificate(String),
    Cluster(String),
    /// As [`TokenPlace::Typed`].
    Token,
}

fn token_place(text: &str) -> Result<TokenPlace, Infallible> {
    let file = text.strip_prefix('@').filter(|file| !file.is_empty());
    Ok(file.map_or(TokenPlace::Typed, |file| TokenPlace::File(file.into())))
}

fn header(text: &str) -> Result<Header, &'static str> {
    let (name, value) = text.split_once(':').ok_or("not of the form NAME: VALUE")?;
    match (name.trim().to_ascii_lowercase().as_str(), value.trim()) {
        ("x-forwarded-client-cert", value) => Ok(Header::ForwardedCertificate(value.into())),
        ("clusterid", value) => Ok(Header::Cluster(value.into())),
        ("authorization", _) => Ok(Header::Token),
        _ => Err("only x-forwarded-client-cert and clusterid are looked at"),
    }
}
