//! `ca-server explain`: what would be decided about a caller, by whom, and by which rule.
//!
//! By the same parts that a server is made of, from the same configuration, and without a server.

use std::fmt;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ca_auth::{AuthnError, Caller, Evidence, Grant, Source, Transport};
use ca_core::{
    Certificate, CertificateChain, PublicKeyKind, TrustBundle, TtlPolicy, format_duration,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::token;
use crate::args::{Args, ExplainArgs, Header, TokenPlace};
use crate::authentication::{self, ClusterCallers, Witness};
use crate::config::Config;
use crate::kubernetes::Cluster;
use crate::report::shown;
use crate::status::IssueError;

/// Prints the decision. Succeeds if a certificate would be granted.
pub(super) fn explain(explain: &ExplainArgs, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::try_from(args)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(decide(explain, config))
}

#[expect(
    clippy::disallowed_methods,
    reason = "an edge: the question is what would be decided now"
)]
async fn decide(explain: &ExplainArgs, config: Config) -> anyhow::Result<ExitCode> {
    let now = OffsetDateTime::now_utc();
    let evidence = evidence(explain, &config.data_dir, now)?;
    let callers = match config.kubernetes {
        None => None,
        Some(kubernetes) => {
            let cluster = Cluster::new(kubernetes).await?;
            let mesh = &config.trust_domain;
            let callers = ClusterCallers::follow(&cluster, config.cluster_callers, mesh)?;
            // An API server that is away has this much time, and then the answer is what it would be without it.
            _ = tokio::time::timeout(PATIENCE, callers.clusters.local().synced()).await;
            Some(callers)
        }
    };
    let (mut authorizer, _) =
        authentication::authorizer(config.authentication.policy.as_ref(), &config.trust_domain)?;
    if let Some(callers) = &callers {
        authorizer = callers.authorizer(authorizer);
    }
    let verdicts = Arc::new(Verdicts::default());
    let authenticators = authentication::authenticators(
        config.authentication,
        &config.trust_domain,
        callers.as_ref(),
        || token::load_existing(&config.data_dir),
        &(Arc::clone(&verdicts) as Arc<dyn Witness>),
    )?;

    let asked = authenticators.authenticate(&evidence, now);
    let asked = tokio::time::timeout(PATIENCE, asked)
        .await
        .map_err(|_| anyhow::anyhow!("no answer within {}", format_duration(PATIENCE)))?;
    print!("{verdicts}");
    let granted = match asked {
        Ok(caller) => authorizer
            .authorize(caller, explain.impersonate.as_deref())
            .map_err(IssueError::from),
        Err(refusal) => Err(refusal.into()),
    };
    let lifetimes = granted.and_then(|grant| {
        let wanted = config.ttl.resolve(explain.ttl)?;
        Ok((grant.lifetime(wanted), grant))
    });
    Ok(match lifetimes {
        Ok((lifetime, grant)) => {
            print_grant(&grant, lifetime, &config.ttl);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let told = error.to_status();
            println!("refused");
            line("reason", &error);
            line(
                "the caller is told",
                format!("{:?}, {}", told.code(), told.message()),
            );
            ExitCode::FAILURE
        }
    })
}

fn print_grant(grant: &Grant, lifetime: Duration, ttl: &TtlPolicy) {
    println!("granted");
    for name in grant.identities() {
        line("name", name);
    }
    for rule in grant.rules() {
        line("by", rule);
    }
    let most = grant.lifetime(ttl.max());
    line(
        "lifetime",
        format!(
            "{}, at most {}",
            format_duration(lifetime),
            format_duration(most)
        ),
    );
    let kinds = KEY_KINDS.into_iter();
    let (good, bad): (Vec<_>, Vec<_>) = kinds.partition(|kind| grant.check_key(*kind).is_ok());
    let names = |kinds: &[PublicKeyKind]| {
        let names: Vec<_> = kinds.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    line("keys", names(&good));
    if let Some(Err(refused)) = bad.first().map(|kind| grant.check_key(*kind)) {
        line("not", format!("{} ({refused})", names(&bad)));
    }
}

/// What each authenticator says.
#[derive(Debug, Default)]
struct Verdicts(Mutex<Vec<(&'static str, String)>>);

impl Witness for Verdicts {
    fn verdict(
        &self,
        authenticator: &'static str,
        verdict: &Result<Caller, AuthnError>,
        _took: Duration,
    ) {
        let text = match verdict {
            Ok(caller) => {
                let names = caller.identities.as_slice().iter();
                let names: Vec<_> = names.map(ToString::to_string).collect();
                let source = match &caller.source {
                    Source::Token { issuer: Some(name) } => format!(", token of {name}"),
                    Source::ClientCertificate { serial } => format!(", certificate {serial}"),
                    _ => String::new(),
                };
                let until = shown(caller.expires);
                format!("vouches for {}{source}, until {until}", names.join(", "))
            }
            Err(reason) => reason.to_string(),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((authenticator, text));
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "asked")?;
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .try_for_each(|(name, verdict)| writeln!(f, "  {name:<20}  {verdict}"))
    }
}

fn line(label: &str, value: impl fmt::Display) {
    println!("  {label:<20}  {value}");
}

fn evidence(
    explain: &ExplainArgs,
    data_dir: &Path,
    now: OffsetDateTime,
) -> Result<Evidence, ExplainError> {
    let client_chain = match &explain.cert {
        None => None,
        Some(path) => Some(client_chain(path, data_dir, now)?),
    };
    let mut evidence = Evidence::new(Transport::Tls { client_chain })
        .with_peer_address(SocketAddr::new(explain.peer, 0));
    if let Some(place) = &explain.token {
        let TokenPlace::File(path) = place else {
            return Err(ExplainError::TypedToken);
        };
        let token = Zeroizing::new(read(path)?);
        let header = Zeroizing::new(format!("Bearer {}", token.trim()));
        evidence = evidence.with_authorization(&header);
    }
    for header in &explain.header {
        evidence = match header {
            Header::ForwardedCertificate(value) => evidence.with_forwarded_certificate(value),
            Header::Cluster(name) => evidence.with_cluster(name),
            Header::Token => return Err(ExplainError::TypedToken),
        };
    }
    Ok(evidence)
}

fn read(path: &Path) -> Result<String, ExplainError> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|cause| ExplainError::Read {
        path: path.into(),
        cause,
    })
}

/// What the handshake of a server would let through.
fn client_chain(
    path: &Path,
    data_dir: &Path,
    now: OffsetDateTime,
) -> Result<CertificateChain, ExplainError> {
    let wrong = |path: &Path, cause: &dyn fmt::Display| ExplainError::Certificate {
        path: path.into(),
        cause: cause.to_string(),
    };
    let roots_file = data_dir.join("root-cert.pem");
    let roots = TrustBundle::from_pem(read(&roots_file)?.as_bytes());
    let roots = roots.map_err(|cause| wrong(&roots_file, &cause))?;
    let mut all =
        Certificate::all_from_pem(read(path)?.as_bytes()).map_err(|cause| wrong(path, &cause))?;
    if all.is_empty() {
        return Err(wrong(path, &"no certificate in it"));
    }
    let chain = CertificateChain::new(all.remove(0), all);

    let mut store = RootCertStore::empty();
    let der = |each: &Certificate| CertificateDer::from(each.der().to_vec());
    for root in roots.certificates() {
        store
            .add(der(root))
            .map_err(|cause| wrong(&roots_file, &cause))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|cause| wrong(&roots_file, &cause))?;
    let intermediates: Vec<_> = chain.intermediates().iter().map(der).collect();
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let verified = verifier.verify_client_cert(&der(chain.leaf()), &intermediates, now);
    match verified {
        Ok(_) => Ok(chain),
        Err(cause) => Err(ExplainError::Handshake {
            path: path.into(),
            roots: roots_file,
            cause,
        }),
    }
}

/// Why there is nothing to judge.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    #[error(
        "a token does not belong on the command line: put it into a file and type --token @FILE"
    )]
    TypedToken,
    #[error("cannot read {}: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("{}: {cause}", path.display())]
    Certificate { path: PathBuf, cause: String },
    #[error("{}: the connection would be refused, by the roots in {}: {cause}", path.display(), roots.display())]
    Handshake {
        path: PathBuf,
        roots: PathBuf,
        cause: rustls::Error,
    },
}

/// The kinds that a request may have a key of.
const KEY_KINDS: [PublicKeyKind; 6] = [
    PublicKeyKind::EcdsaP256,
    PublicKeyKind::EcdsaP384,
    PublicKeyKind::Ed25519,
    PublicKeyKind::Rsa { bits: 2048 },
    PublicKeyKind::Rsa { bits: 3072 },
    PublicKeyKind::Rsa { bits: 4096 },
];
/// An issuer that must be asked has this long.
const PATIENCE: Duration = Duration::from_secs(15);
