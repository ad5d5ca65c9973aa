//! What is meant about a CA above this one.

use std::path::PathBuf;
use std::time::Duration;

use ca_core::KeyKind;
use ca_ra::{UpstreamConfig, UpstreamCredential};

use crate::args::AuthorityArgs;

/// The CA above this one.
#[derive(Debug)]
pub(crate) struct UpstreamCa {
    pub(crate) source: UpstreamSource,
    /// To ask for; who drops files decides alone.
    pub(crate) lifetime: Duration,
    /// Of the keys that are made here.
    pub(crate) key_kind: KeyKind,
    pub(crate) check_interval: Duration,
}

/// How it certifies.
#[derive(Debug)]
pub(crate) enum UpstreamSource {
    Ask(UpstreamConfig),
    Drop(PathBuf),
}

pub(super) fn upstream(args: AuthorityArgs) -> Result<Option<UpstreamCa>, UpstreamFlagsError> {
    let source = match (args.upstream_ca_addr, args.upstream_ca_drop) {
        (None, None) => return Ok(None),
        (None, Some(folder)) => UpstreamSource::Drop(folder),
        (Some(address), _) => {
            let roots = args.upstream_ca_root.ok_or(UpstreamFlagsError::NoRoot)?;
            let certificate = args
                .upstream_ca_client_cert
                .zip(args.upstream_ca_client_key);
            let credential = match (args.upstream_ca_token_file, certificate) {
                (Some(token), _) => UpstreamCredential::Token(token),
                (None, Some((chain, key))) => UpstreamCredential::Certificate { chain, key },
                (None, None) => return Err(UpstreamFlagsError::NoCredential),
            };
            UpstreamSource::Ask(UpstreamConfig {
                address,
                roots,
                credential,
            })
        }
    };
    let second = Duration::from_secs(1);
    if args.upstream_ca_ttl < second || args.upstream_ca_check_interval < second {
        return Err(UpstreamFlagsError::TooShort);
    }
    Ok(Some(UpstreamCa {
        source,
        lifetime: args.upstream_ca_ttl,
        key_kind: args.upstream_ca_key_kind.into(),
        check_interval: args.upstream_ca_check_interval,
    }))
}

/// Flags about an upstream CA that cannot be meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamFlagsError {
    /// Whom to trust there is for the operator to say.
    #[error(
        "--upstream-ca-addr needs --upstream-ca-root: the roots that its server is verified with"
    )]
    NoRoot,
    /// It certifies nobody whom it does not know.
    #[error(
        "--upstream-ca-addr needs --upstream-ca-token-file, or --upstream-ca-client-cert and --upstream-ca-client-key"
    )]
    NoCredential,
    /// A certificate that would be over at once, or looks without a pause.
    #[error("--upstream-ca-ttl and --upstream-ca-check-interval are one second at least")]
    TooShort,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;

    fn read(flags: &[&str]) -> Result<Option<UpstreamCa>, UpstreamFlagsError> {
        let args = Args::try_parse_from(["ca-server"].iter().chain(flags)).unwrap();
        upstream(args.authority)
    }

    #[test]
    fn an_upstream_is_asked_or_drops_files_and_half_of_the_flags_is_told() {
        assert!(read(&[]).unwrap().is_none());
        let folder = read(&["--upstream-ca-drop", "/drop"]).unwrap().unwrap();
        assert!(matches!(folder.source, UpstreamSource::Drop(_)));
        let to = ["--upstream-ca-address", "ca:15012"];
        assert_eq!(read(&to).unwrap_err(), UpstreamFlagsError::NoRoot);
        let trusted = [&to[..], &["--upstream-ca-root", "/r"]].concat();
        assert_eq!(
            read(&trusted).unwrap_err(),
            UpstreamFlagsError::NoCredential
        );
        let all = [&trusted[..], &["--upstream-ca-token-file", "/t"]].concat();
        let upstream = read(&all).unwrap().unwrap();
        assert_eq!(upstream.lifetime, Duration::from_secs(720 * 3600));
        assert_eq!(upstream.key_kind, KeyKind::EcdsaP256);
        let slow = [&all[..], &["--upstream-ca-key-kind", "rsa-3072"]].concat();
        assert_eq!(read(&slow).unwrap().unwrap().key_kind, KeyKind::Rsa3072);
        assert!(matches!(upstream.source, UpstreamSource::Ask(_)));
        let hasty = [&all[..], &["--upstream-ca-ttl", "0s"]].concat();
        assert_eq!(read(&hasty).unwrap_err(), UpstreamFlagsError::TooShort);
        for both in [
            [&all[..], &["--upstream-ca-drop", "/d"]].concat(),
            [&trusted[..], &["--upstream-ca-client-cert", "/c"]].concat(),
            vec!["--upstream-ca-root", "/r"],
        ] {
            assert!(
                Args::try_parse_from(["ca-server"].iter().chain(&both)).is_err(),
                "{both:?}"
            );
        }
    }
}
