//! `ca-server explain`: what would be decided about a caller, by whom, and by which rule.
//!
//! By the same parts that a server is made of, from the same configuration, and without a server.

use std::fmt;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ca_auth::{AuthnError, Caller, Evidence, Grant, Source, Transport};
use ca_core::{
    Certificate, CertificateChain, PublicKeyKind, TrustBundle, TtlPolicy, format_duration,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::token;
use crate::args::{Args, ExplainArgs, Header, TokenPlace};
use crate::authentication::{self, ClusterCallers, Witness};
use crate::authority::plugged::{self, PluggedError};
use crate::config::{Config, Whose};
use crate::kubernetes::Cluster;
use crate::report::shown;
use crate::serving::{Provider, ServingError};
use crate::status::IssueError;

/// The decision. Yes if a certificate would be granted.
pub(super) fn explain(explain: &ExplainArgs, args: Args) -> anyhow::Result<Answer> {
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
async fn decide(explain: &ExplainArgs, config: Config) -> anyhow::Result<Answer> {
    let now = OffsetDateTime::now_utc();
    let evidence = evidence(explain, &config, now)?;
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
    let granted = match asked {
        Ok(caller) => authorizer
            .authorize(caller, explain.impersonate.as_deref())
            .map_err(IssueError::from),
        Err(refusal) => Err(refusal.into()),
    };
    let lifetimes = granted.and_then(|grant| {
        // As on the wire, where nothing asked for is 0.
        let wanted = explain.ttl.filter(|ttl| !ttl.is_zero());
        let wanted = config.ttl.resolve(wanted)?;
        Ok((grant.lifetime(wanted), grant))
    });
    Ok(match lifetimes {
        Ok((lifetime, grant)) => {
            let said = granted_text(&grant, lifetime, &config.ttl);
            Answer::yes(format_args!("{verdicts}{said}"))
        }
        Err(error) => {
            let said = refused_text(&error);
            Answer::no(format_args!("{verdicts}{said}"))
        }
    })
}

fn refused_text(error: &IssueError) -> String {
    let told = error.to_status();
    let told = format!("{:?}, {}", told.code(), told.message());
    let mut text = String::from("refused\n");
    text += &line("reason", error);
    text += &line("the caller is told", told);
    text
}

fn granted_text(grant: &Grant, lifetime: Duration, ttl: &TtlPolicy) -> String {
    let mut text = String::from("granted\n");
    for name in grant.identities() {
        text += &line("name", name);
    }
    for rule in grant.rules() {
        text += &line("by", rule);
    }
    let most = format_duration(grant.lifetime(ttl.max()));
    let lifetime = format!("{}, at most {most}", format_duration(lifetime));
    text += &line("lifetime", lifetime);
    let kinds = KEY_KINDS.into_iter();
    let (good, bad): (Vec<_>, Vec<_>) = kinds.partition(|kind| grant.check_key(*kind).is_ok());
    let names = |kinds: &[PublicKeyKind]| {
        let names: Vec<_> = kinds.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    text += &line("keys", names(&good));
    if let Some(Err(refused)) = bad.first().map(|kind| grant.check_key(*kind)) {
        text += &line("not", format!("{} ({refused})", names(&bad)));
    }
    text
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
                let mut text = format!("vouches for {}", names.join(", "));
                match &caller.source {
                    Source::Token { issuer: Some(name) } => text += &format!(", token of {name}"),
                    Source::ClientCertificate { serial } => {
                        text += &format!(", certificate {serial}");
                    }
                    _ => {}
                }
                // What a proxy says of a certificate has no end of its own: it is good for this one request.
                if !matches!(caller.source, Source::ForwardedCertificate { .. }) {
                    text += &format!(", until {}", shown(caller.expires));
                }
                text
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
            .try_for_each(|(name, verdict)| f.write_str(&line(name, verdict)))
    }
}

/// Values stand below each other: behind the longest name of an authenticator, `forwarded-certificate`.
fn line(label: &str, value: impl fmt::Display) -> String {
    format!("  {label:<21}  {value}\n")
}

fn evidence(
    explain: &ExplainArgs,
    config: &Config,
    now: OffsetDateTime,
) -> Result<Evidence, ExplainError> {
    let client_chain = match &explain.cert {
        None => None,
        Some(path) => Some(client_chain(path, config, now)?),
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

/// What the handshake of a server with this configuration would let through.
fn client_chain(
    path: &Path,
    config: &Config,
    now: OffsetDateTime,
) -> Result<CertificateChain, ExplainError> {
    let wrong = |cause: &dyn fmt::Display| ExplainError::Certificate {
        path: path.into(),
        cause: cause.to_string(),
    };
    let mut all =
        Certificate::all_from_pem(read(path)?.as_bytes()).map_err(|cause| wrong(&cause))?;
    if all.is_empty() {
        return Err(wrong(&"no certificate in it"));
    }
    let chain = CertificateChain::new(all.remove(0), all);

    let (mesh, mut places) = mesh_roots(config)?;
    let plan = &config.serving.plan;
    let verifier = plan.client_verifier(mesh)?;
    if let Provider::Files(files) = &plan.provider {
        places += &format!(" and {}", files.roots.display());
    }
    let der = |each: &Certificate| CertificateDer::from(each.der().to_vec());
    let intermediates: Vec<_> = chain.intermediates().iter().map(der).collect();
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let verified = verifier.verify_client_cert(&der(chain.leaf()), &intermediates, now);
    match verified {
        Ok(_) => Ok(chain),
        Err(cause) => Err(ExplainError::Handshake {
            path: path.into(),
            roots: places,
            cause,
        }),
    }
}

/// The roots of the mesh, as far as they are known without a server, and where they are from.
fn mesh_roots(config: &Config) -> Result<(TrustBundle, String), ExplainError> {
    if let Whose::Own(_) = config.whose {
        let folder = &config.root_ca_dir;
        let files = plugged::follow_operators(folder, config.keeps_own_ca_in_cacerts())?;
        if let Some(files) = files {
            let roots = files.current().roots().clone();
            return Ok((roots, folder.display().to_string()));
        }
    }
    // What the server has written there last.
    let path = config.data_dir.join("root-cert.pem");
    match TrustBundle::from_pem(read(&path)?.as_bytes()) {
        Ok(roots) => Ok((roots, path.display().to_string())),
        Err(cause) => Err(ExplainError::Certificate {
            path,
            cause: cause.to_string(),
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
    #[error(transparent)]
    Plugged(#[from] PluggedError),
    #[error("serving certificate: {0}")]
    Serving(#[from] ServingError),
    #[error("{}: the connection would be refused, by the roots in {roots}: {cause}", path.display())]
    Handshake {
        path: PathBuf,
        roots: String,
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
