//! The record of what was issued and what was refused: one JSON object for each, one line for each.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ca_auth::{Caller, Evidence, RuleName, Source};
use ca_core::IssuedChain;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::status::IssueError;

/// Where records go, and what follows when they cannot.
#[derive(Debug)]
pub(crate) struct AuditLog {
    /// Held for one write: lines of two requests do not mix.
    state: Mutex<State>,
    on_failure: OnFailure,
}

#[derive(Debug)]
struct State {
    file: RotatedFile,
    failures: Failures,
}

/// What has gone wrong with the writing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    /// Whether the last record could not be written.
    pub(crate) is_failing: bool,
    pub(crate) last: Option<(Instant, String)>,
}

/// How it goes, for people and metrics.
#[derive(Clone, Debug)]
pub(crate) struct AuditStatus {
    pub(crate) path: PathBuf,
    pub(crate) on_failure: OnFailure,
    pub(crate) bytes: u64,
    pub(crate) failures: Failures,
}

/// What becomes of a certificate that cannot be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// It is released all the same; the failure is in the log.
    Release,
    /// It is not released.
    Refuse,
}

impl AuditLog {
    pub(crate) fn open(
        path: &Path,
        limits: RotationLimits,
        on_failure: OnFailure,
    ) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State {
                file: RotatedFile::open(path, limits)?,
                failures: Failures::default(),
            }),
            on_failure,
        })
    }

    /// Hands one record to the system, before the caller learns of the outcome.
    pub(crate) fn write(&self, record: &Record<'_>) -> Result<(), AuditError> {
        let mut line = serde_json::to_vec(record).map_err(|error| AuditError(error.to_string()))?;
        line.push(b'\n');
        let mut state = self
            .state
            .lock()
            .map_err(|_| AuditError("an earlier write panicked".into()))?;
        let written = state.file.write(&line);
        state.failures.is_failing = written.is_err();
        let Err(error) = written else {
            return Ok(());
        };
        state.failures.count += 1;
        state.failures.last = Some((Instant::now(), error.to_string()));
        tracing::error!(path = %state.file.path.display(), "audit record not written: {error}");
        match self.on_failure {
            OnFailure::Release => Ok(()),
            OnFailure::Refuse => Err(AuditError(error.to_string())),
        }
    }

    pub(crate) fn status(&self) -> AuditStatus {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        AuditStatus {
            path: state.file.path.clone(),
            on_failure: self.on_failure,
            bytes: state.file.bytes,
            failures: state.failures.clone(),
        }
    }
}

/// A record that could not be written where it must be.
#[derive(Debug, thiserror::Error)]
#[error("audit record not written: {0}")]
pub(crate) struct AuditError(String);

/// One outcome. The names of the fields are part of what users rely on: `docs/operating.md`.
#[derive(Debug, Serialize)]
pub(crate) struct Record<'a> {
    time: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<CallerRecord<'a>>,
    /// Why the caller gets these names, and what limits them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateRecord>,
}

#[derive(Debug, Serialize)]
struct CallerRecord<'a> {
    identities: Vec<&'a str>,
    authenticator: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_serial: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_issuer: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct CertificateRecord {
    names: Vec<String>,
    serial: String,
    fingerprint_sha256: String,
    key: String,
    not_before: String,
    not_after: String,
    ttl_seconds: i64,
    /// There if it is the certificate of a CA.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ca: bool,
}

impl<'a> Record<'a> {
    pub(crate) fn new(
        now: OffsetDateTime,
        evidence: &'a Evidence,
        caller: Option<&'a Caller>,
        outcome: &Result<IssuedChain, IssueError>,
    ) -> Self {
        Self {
            time: shown(now),
            outcome: if outcome.is_ok() { "issued" } else { "refused" },
            reason: outcome.as_ref().err().map(ToString::to_string),
            peer: evidence.peer_address().map(|address| address.to_string()),
            cluster: evidence.cluster(),
            caller: caller.map(CallerRecord::of),
            rules: Vec::new(),
            certificate: outcome
                .as_ref()
                .ok()
                .map(|issued| CertificateRecord::of(issued, now)),
        }
    }

    pub(crate) fn with_rules(mut self, rules: &[RuleName]) -> Self {
        self.rules = rules.iter().map(ToString::to_string).collect();
        self
    }
}

impl<'a> CallerRecord<'a> {
    fn of(caller: &'a Caller) -> Self {
        let (certificate_serial, token_issuer) = match &caller.source {
            Source::ClientCertificate { serial } => (Some(&**serial), None),
            Source::Token { issuer } => (None, issuer.as_deref()),
            _ => (None, None),
        };
        Self {
            identities: caller
                .identities
                .as_slice()
                .iter()
                .map(ca_core::SpiffeId::as_str)
                .collect(),
            authenticator: caller.authenticator,
            certificate_serial,
            token_issuer,
        }
    }
}

impl CertificateRecord {
    fn of(issued: &IssuedChain, now: OffsetDateTime) -> Self {
        let leaf = issued.chain().leaf();
        Self {
            names: leaf.names().iter().map(ToString::to_string).collect(),
            serial: leaf.serial(),
            fingerprint_sha256: leaf.fingerprint(),
            key: leaf.public_key().kind().to_string(),
            not_before: shown(leaf.not_before()),
            not_after: shown(leaf.not_after()),
            ttl_seconds: (leaf.not_after() - now).whole_seconds(),
            ca: leaf.is_ca(),
        }
    }
}

fn shown(time: OffsetDateTime) -> String {
    // Only a year beyond 9999 does not format, and no certificate has one.
    time.format(&Rfc3339).unwrap_or_default()
}

/// When a file has grown enough, and how many full ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RotationLimits {
    pub(crate) max_bytes: u64,
    pub(crate) keep: u32,
}

/// A file that is put aside when it is full: `audit.log`, then `audit.log.1`, `audit.log.2`, …, the highest the oldest.
#[derive(Debug)]
struct RotatedFile {
    path: PathBuf,
    limits: RotationLimits,
    file: File,
    bytes: u64,
}

impl RotatedFile {
    fn open(path: &Path, limits: RotationLimits) -> io::Result<Self> {
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.into(),
            limits,
            file,
            bytes,
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.limits.max_bytes {
            self.put_aside()?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.limits.keep).rev() {
            match std::fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.limits.keep > 0 {
            std::fs::rename(&self.path, numbered(1))?;
        } else {
            std::fs::remove_file(&self.path)?;
        }
        self.file = append_to(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use ca_auth::Transport;
    use ca_core::testing::{TestCa, now};
    use ca_core::{Csr, PrivateKey, create_csr_pem};

    use super::*;

    fn issued() -> IssuedChain {
        let ca = TestCa::new("cluster.local");
        let key = PrivateKey::generate(Default::default()).unwrap();
        let csr = Csr::from_pem(create_csr_pem(&key, &[]).unwrap().as_bytes()).unwrap();
        ca.issue(
            &csr,
            &[ca.id("shop", "cart").into()],
            Duration::from_secs(600),
            now(),
        )
    }

    fn evidence() -> Evidence {
        Evidence::new(Transport::Tls { client_chain: None })
            .with_peer_address("10.0.0.7:4711".parse().unwrap())
            .with_authorization("Bearer secret-token")
            .with_cluster("eu-1")
    }

    #[test]
    fn a_record_tells_who_got_what_and_nothing_secret() {
        let (issued, evidence) = (issued(), evidence());
        let caller = Caller::new(
            "token",
            Source::Token {
                issuer: Some("mesh-ca-local".into()),
            },
            "spiffe://cluster.local/ns/shop/sa/cart"
                .parse::<ca_core::SpiffeId>()
                .unwrap()
                .into(),
            now(),
        );
        let text = serde_json::to_string(
            &Record::new(now(), &evidence, Some(&caller), &Ok(issued.clone()))
                .with_rules(&[RuleName::OWN]),
        );
        let value: serde_json::Value = serde_json::from_str(text.as_ref().unwrap()).unwrap();
        assert_eq!(value["outcome"], "issued");
        assert_eq!(value["peer"], "10.0.0.7:4711");
        assert_eq!(value["cluster"], "eu-1");
        assert_eq!(value["rules"], serde_json::json!(["own identity"]));
        assert_eq!(value["caller"]["token_issuer"], "mesh-ca-local");
        assert_eq!(
            value["certificate"]["names"][0],
            "spiffe://cluster.local/ns/shop/sa/cart"
        );
        assert_eq!(
            value["certificate"]["serial"],
            issued.chain().leaf().serial()
        );
        assert_eq!(value["certificate"]["key"], "ECDSA P-256");
        assert!((595..=600).contains(&value["certificate"]["ttl_seconds"].as_i64().unwrap()));
        assert!(!text.unwrap().contains("secret-token"));

        let refusal = Err(ca_core::CsrError::NotPem.into());
        let value = serde_json::to_value(Record::new(now(), &evidence, None, &refusal)).unwrap();
        assert_eq!(value["outcome"], "refused");
        assert_eq!(
            value["reason"],
            "certificate signing request is not properly encoded"
        );
        assert_eq!(value.get("certificate"), None);
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let limits = RotationLimits {
            max_bytes: 10,
            keep: 2,
        };
        for line in [
            "one\n", "two\n", "three\n", "four\n", "five\n", "six\n", "seven\n",
        ] {
            // Opened anew each time: a restart goes on in the same file.
            RotatedFile::open(&path, limits)
                .unwrap()
                .write(line.as_bytes())
                .unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        // Ten bytes: "one two", "three", "four five", "six seven", of which the first two are gone or going.
        assert_eq!(read("audit.log"), "six\nseven\n");
        assert_eq!(read("audit.log.1"), "four\nfive\n");
        assert_eq!(read("audit.log.2"), "three\n");
        assert!(!folder.path().join("audit.log.3").exists());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn what_cannot_be_recorded_is_released_or_not_as_configured() {
        let limits = RotationLimits {
            max_bytes: u64::MAX,
            keep: 1,
        };
        let evidence = evidence();
        let outcome = Ok(issued());
        for (on_failure, released) in [(OnFailure::Release, true), (OnFailure::Refuse, false)] {
            // A device that is always full.
            let log = AuditLog::open(Path::new("/dev/full"), limits, on_failure).unwrap();
            let written = log.write(&Record::new(now(), &evidence, None, &outcome));
            assert_eq!(written.is_ok(), released, "{on_failure:?}");
            let failures = log.status().failures;
            assert!(failures.count == 1 && failures.is_failing && failures.last.is_some());
        }
    }
}
