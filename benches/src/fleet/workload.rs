//! Workloads: who they are, what they ask, how they prove it. Their cryptography is done before anything is measured.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ca_auth::{LocalIssuer, ServiceAccount};
use ca_core::{KeyKind, PrivateKey, SpiffeId, create_csr_pem};
use http::HeaderValue;
use rustls::ClientConfig;
use time::OffsetDateTime;

use super::args::CallerArgs;
use super::connection::{Connection, Prepared, ask};
use super::target::{Identity, Target};

/// One of them.
pub(crate) struct Workload {
    pub(crate) prepared: Prepared,
    pub(crate) tls: Arc<ClientConfig>,
}

/// All of them.
///
/// # Errors
/// When there is nothing to prove who they are with, or the CA gives no certificate to those who should have one.
pub(crate) async fn make(args: &CallerArgs, ttl: i64, target: &Target) -> Result<Vec<Workload>> {
    ensure!(args.workloads > 0, "a fleet has at least one workload");
    let without_certificate = target.tls(None)?;
    let shared = shared_certificate(args, target)?;
    let mut tokens = Tokens::new(args)?;
    let accounts = args.accounts.unwrap_or(args.workloads).max(1);
    let (mut workloads, mut keys) = (Vec::new(), Vec::new());
    for number in 0..args.workloads {
        let account = format!("w-{}", number % accounts);
        let id = SpiffeId::workload(&args.trust_domain, &args.namespace, &account)?;
        let key = PrivateKey::generate(KeyKind::EcdsaP256)?;
        let csr = create_csr_pem(&key, &[id.into()])?;
        let token = tokens.next(&args.namespace, &account)?;
        workloads.push(Workload {
            prepared: Prepared::new(csr, ttl, token),
            tls: Arc::clone(shared.as_ref().unwrap_or(&without_certificate)),
        });
        keys.push(key);
    }
    let certified = (args.certified * args.workloads as f64).round() as usize;
    ensure!(
        certified == 0 || shared.is_none(),
        "a certificate is given already: nobody needs to ask for one"
    );
    // Those who change are spread over the fleet, as each thread has a part of it.
    if let Some(every) = args.workloads.checked_div(certified) {
        let who = (0..args.workloads).step_by(every).take(certified);
        certify(who, &mut workloads, &keys, target).await?;
    }
    Ok(workloads)
}

/// Over one connection, one after the other: this is not measured.
async fn certify(
    who: impl Iterator<Item = usize>,
    workloads: &mut [Workload],
    keys: &[PrivateKey],
    target: &Target,
) -> Result<()> {
    let connection = Connection::open(target, target.tls(None)?)
        .await
        .map_err(|failure| anyhow::anyhow!("cannot connect: {failure}"))?;
    let timeout = HeaderValue::from_static("10S");
    for number in who {
        let workload = &mut workloads[number];
        let asked = ask(connection.sender(), target, &workload.prepared, &timeout);
        let answer = match tokio::time::timeout(Duration::from_secs(10), asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) => bail!("no certificate for workload {number}: {failure}"),
            Err(_) => bail!("no answer to workload {number}"),
        };
        let chain = answer[..answer.len() - 1].concat();
        workload.tls = target.tls(Some(Identity {
            chain_pem: chain.as_bytes(),
            key_pem: keys[number].to_pkcs8_pem().as_bytes(),
        }))?;
        workload.prepared = workload.prepared.clone().without_token();
    }
    Ok(())
}

fn shared_certificate(args: &CallerArgs, target: &Target) -> Result<Option<Arc<ClientConfig>>> {
    let (Some(chain), Some(key)) = (&args.client_cert, &args.client_key) else {
        return Ok(None);
    };
    let (chain, key) = (read(chain)?, read(key)?);
    let identity = Identity {
        chain_pem: chain.as_bytes(),
        key_pem: key.as_bytes(),
    };
    target.tls(Some(identity)).map(Some)
}

/// Where tokens come from.
enum Tokens<'a> {
    None,
    One(HeaderValue),
    /// By their accounts, in files.
    Folder(&'a Path),
    Made {
        issuer: Box<LocalIssuer>,
        audience: &'a str,
    },
    Printed {
        command: &'a str,
        /// A command is slow: one run for each account.
        known: std::collections::HashMap<String, HeaderValue>,
    },
}

impl<'a> Tokens<'a> {
    fn new(args: &'a CallerArgs) -> Result<Self> {
        if let Some(path) = &args.token_file {
            return Ok(Self::One(bearer(&read(path)?)?));
        }
        if let Some(folder) = &args.token_folder {
            return Ok(Self::Folder(folder));
        }
        if let Some(path) = &args.token_key {
            let issuer = LocalIssuer::from_pem(read(path)?.as_bytes())?;
            return Ok(Self::Made {
                issuer: Box::new(issuer),
                audience: &args.audience,
            });
        }
        Ok(match &args.token_command {
            Some(command) => Self::Printed {
                command,
                known: std::collections::HashMap::new(),
            },
            None => Self::None,
        })
    }

    #[expect(clippy::disallowed_methods, reason = "an edge: tokens are made now")]
    fn next(&mut self, namespace: &str, account: &str) -> Result<Option<HeaderValue>> {
        Ok(match self {
            Self::None => None,
            Self::One(token) => Some(token.clone()),
            Self::Folder(folder) => Some(bearer(&read(&folder.join(account))?)?),
            Self::Made { issuer, audience } => {
                let account = ServiceAccount::new(namespace, account)?;
                let token = issuer.issue(
                    &account,
                    audience,
                    TOKEN_LIFETIME,
                    OffsetDateTime::now_utc(),
                )?;
                Some(bearer(&token)?)
            }
            Self::Printed { command, known } => {
                if let Some(token) = known.get(account) {
                    return Ok(Some(token.clone()));
                }
                let line = command
                    .replace("{namespace}", namespace)
                    .replace("{account}", account);
                let output = Command::new("sh").args(["-c", &line]).output()?;
                ensure!(
                    output.status.success(),
                    "`{line}`: {}: {}",
                    output.status,
                    String::from_utf8_lossy(&output.stderr).trim_end()
                );
                let token = bearer(std::str::from_utf8(&output.stdout)?)?;
                known.insert(account.to_owned(), token.clone());
                Some(token)
            }
        })
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn bearer(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
        .context("a token is one line of text")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Longer than any run.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
