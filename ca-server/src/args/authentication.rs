//! What was typed about who is believed, and about who may have what.

use std::path::PathBuf;
use std::time::Duration;

use ca_auth::JwtAuthenticator;
use ca_core::parse_duration;

use super::value;

/// Who is believed, and who may have what.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Callers")]
pub(crate) struct AuthenticationArgs {
    /// Public keys of a token issuer: a file with a JWK Set or PEM, which is followed, or the https:// address of a JWK Set.
    /// Without any issuer, the server accepts its own local tokens.
    #[arg(long, value_name = "FILE|URL")]
    pub(crate) token_issuer_keys: Option<String>,

    /// The `iss` that tokens must have. Without `--token-issuer-keys`, its keys are where
    /// <ISSUER>/.well-known/openid-configuration says.
    #[arg(long, env = "TOKEN_ISSUER", value_name = "ISSUER")]
    pub(crate) token_issuer: Option<String>,

    /// The audiences of which a token must have one.
    #[arg(
        long,
        env = "TOKEN_AUDIENCES",
        value_name = "AUDIENCE,...",
        value_delimiter = ',',
        default_value = "istio-ca"
    )]
    pub(crate) token_audiences: Vec<String>,

    /// The same, for tokens of `--token-issuer` alone.
    #[arg(
        long,
        env = "AUDIENCE",
        value_name = "AUDIENCE,...",
        value_delimiter = ','
    )]
    pub(crate) token_issuer_audiences: Vec<String>,

    /// One more issuer, as Istio writes it: {"issuer": .., "jwks_uri": .., "audiences": [..]}.
    #[arg(long, env = "JWT_RULE", value_name = "JSON")]
    pub(crate) jwt_rule: Option<String>,

    /// More issuers, in TOML: [[issuer]] with name, keys, audiences, identity, require, clock-skew, ca-file.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_issuers: Option<PathBuf>,

    /// Certificates (PEM) that servers of issuers are verified with. Default: those of the system.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_issuer_ca: Option<PathBuf>,

    /// How far the clock of an issuer may be off; at most 5m.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = clock_skew)]
    pub(crate) token_clock_skew: Duration,

    /// How often an issuer is asked for its keys.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub(crate) token_keys_refresh: Duration,

    /// How long an issuer is left alone after it was asked, also when a token has an unknown key.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) token_keys_cooldown: Duration,

    /// How long keys are used when the issuer does not answer any more.
    #[arg(long, value_name = "DURATION", default_value = "4h", value_parser = parse_duration)]
    pub(crate) token_keys_max_age: Duration,

    /// Refuse renewal by a certificate older than this: its holder needs a token again. Default: any that is valid.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) renewal_max_age: Option<Duration>,

    /// Addresses of proxies whose `x-forwarded-client-cert` header is believed. Nobody else's is, also not from loopback.
    #[arg(
        long,
        env = "TRUSTED_GATEWAY_CIDR",
        value_name = "RANGE,...",
        value_delimiter = ','
    )]
    pub(crate) trusted_gateway_cidr: Vec<String>,

    /// With false, nobody is authenticated and every request is refused.
    #[arg(long, env = "XDS_AUTH", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) xds_auth: bool,

    /// Rules on who may have which identities, in TOML; followed while the server runs. See `ca-server policy check`.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
}

impl AuthenticationArgs {
    /// Whether any is there whose tokens are believed. Manifests set a variable to nothing where they mean that it is not set.
    pub(crate) fn names_an_issuer(&self) -> bool {
        let texts = [&self.jwt_rule, &self.token_issuer, &self.token_issuer_keys];
        let mut texts = texts.into_iter().flatten();
        texts.any(|text| !text.is_empty()) || self.token_issuers.is_some()
    }
}

/// How far a clock may be off: no further than tokens are judged by.
pub(crate) fn clock_skew(text: &str) -> Result<Duration, String> {
    let most = JwtAuthenticator::MAX_CLOCK_SKEW.unsigned_abs();
    value::duration(Duration::ZERO..=most)(text)
}
