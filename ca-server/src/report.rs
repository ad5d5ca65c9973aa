//! What a running server tells of itself: the object of `/debug`, of `ca-server status`, and of the page.
//!
//! The names of the fields are part of what users rely on: `docs/operating.md`. Times are RFC 3339 in UTC, ages and
//! lifetimes are seconds. **Nothing in it is a secret.**

use ca_core::Certificate;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::refusals::Refused;

mod cluster;
mod cluster_callers;
mod table;

pub(crate) use cluster::{ClusterReport, LeaseReport, PublishedReport, WebhookReport};
pub(crate) use cluster_callers::{
    ClusterCallersReport, IndexReport, RemoteClusterReport, ReviewsReport,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) version: String,
    /// When this was put together.
    pub(crate) time: String,
    pub(crate) started: String,
    pub(crate) trust_domain: String,
    pub(crate) readiness: Readiness,
    /// Of a server that has nothing to sign with yet. Of the rest only `ca` says something then.
    pub(crate) waiting: Option<WaitingReport>,
    pub(crate) ca: CaReport,
    /// Of a server that is a part of a Kubernetes cluster.
    pub(crate) cluster: Option<ClusterReport>,
    pub(crate) serving_certificates: Vec<ServingReport>,
    /// In the order they are tried.
    pub(crate) authenticators: Vec<AuthenticatorReport>,
    /// Those whose callers are believed, ours first.
    pub(crate) caller_clusters: Vec<ClusterCallersReport>,
    /// What Secrets say of others.
    pub(crate) remote_clusters: Vec<RemoteClusterReport>,
    pub(crate) policy: Option<PolicyReport>,
    pub(crate) requests: RequestsReport,
    pub(crate) audit: Option<AuditReport>,
    /// The latest first.
    pub(crate) refusals: Vec<Refused>,
}

/// Whether a certificate asked for now would be signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Readiness {
    pub(crate) ready: bool,
    /// What keeps it from being ready, each in one line.
    pub(crate) missing: Vec<String>,
    /// What somebody should look at although it is no reason to be taken out of service.
    pub(crate) notes: Vec<String>,
}

/// What is waited for before anything can be signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WaitingReport {
    pub(crate) wanted: String,
    pub(crate) since: String,
    /// The last attempt's, as long as none has gone well.
    pub(crate) last_failure: Option<Failure>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CaReport {
    pub(crate) kind: String,
    /// How many bundles this process has signed from. Absent where somebody else signs.
    pub(crate) generation: Option<u64>,
    /// Absent where somebody else signs.
    pub(crate) signing_certificate: Option<CertificateReport>,
    /// Between the signing certificate and the roots.
    pub(crate) chain: Vec<CertificateReport>,
    pub(crate) roots: Vec<RootReport>,
    /// Of a self-signed CA.
    pub(crate) rotation: Option<RotationReport>,
    /// Of a registration authority.
    pub(crate) registration: Option<RegistrationReport>,
    /// Of a CA that another one certifies.
    pub(crate) upstream: Option<UpstreamReport>,
    /// Of a CA whose key is plugged in, or in a Secret.
    pub(crate) files: Option<FilesReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CertificateReport {
    pub(crate) serial: String,
    pub(crate) fingerprint_sha256: String,
    pub(crate) key: String,
    pub(crate) not_before: String,
    pub(crate) not_after: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootReport {
    /// `signs`, `next`, `retiring` or `trusted`.
    pub(crate) role: String,
    #[serde(flatten)]
    pub(crate) certificate: CertificateReport,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RotationReport {
    /// `steady`, `prepared` or `activated`.
    pub(crate) stage: String,
    pub(crate) since: Option<String>,
    /// What the server does next by itself. Absent where that is left to an operator.
    pub(crate) next: Option<NextStep>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NextStep {
    pub(crate) step: String,
    /// Not before, and with the next look after that.
    pub(crate) at: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UpstreamReport {
    /// Its address, or the folder for files.
    pub(crate) certified_by: String,
    /// When the certificate is renewed, or the next attempt is made.
    pub(crate) renewal: Option<String>,
    pub(crate) awaited: Option<String>,
    /// What went wrong since it last went well.
    pub(crate) last_failure: Option<Failure>,
}

/// How it goes with a signer that is asked each time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RegistrationReport {
    pub(crate) signer: String,
    /// Who signs now, where that may change.
    pub(crate) issuer: Option<String>,
    /// Requests that the signer has not answered yet, where that is known.
    pub(crate) under_way: Option<usize>,
    /// What went wrong since it last went well.
    pub(crate) last_failure: Option<Failure>,
}

/// How it goes with files that are followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilesReport {
    pub(crate) path: String,
    /// When what is in use was read. Absent while it is what was there at the start.
    pub(crate) loaded: Option<String>,
    /// How many contents have been taken, with the first.
    pub(crate) loads: u64,
    pub(crate) refusals: u64,
    /// Whether what is there now is refused, so that what is in use is older.
    pub(crate) is_refused: bool,
    pub(crate) last_refusal: Option<Failure>,
}

/// Something that went wrong at some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) time: String,
    pub(crate) reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServingReport {
    /// Of which listener.
    pub(crate) name: String,
    /// `istiod`, `files` or `none`.
    pub(crate) provider: String,
    pub(crate) names: Vec<String>,
    /// Absent where there is none.
    #[serde(flatten)]
    pub(crate) certificate: Option<CertificateReport>,
    /// When it is to be renewed. Absent for files of others.
    pub(crate) renewal: Option<String>,
    pub(crate) last_failure: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuthenticatorReport {
    pub(crate) name: String,
    /// Whose tokens it judges.
    pub(crate) issuer: Option<String>,
    pub(crate) keys: Option<KeysReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeysReport {
    pub(crate) source: Option<String>,
    /// Absent for keys that are not read again, and as long as there are none.
    pub(crate) age_seconds: Option<u64>,
    pub(crate) fingerprints: Vec<String>,
    /// Why they could not be read the last time, if so.
    pub(crate) last_error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PolicyReport {
    pub(crate) allow: usize,
    pub(crate) deny: usize,
    pub(crate) limit: usize,
    /// Rules that say who may be a CA below this one.
    pub(crate) certificate_authority: usize,
    pub(crate) file: FilesReport,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestsReport {
    pub(crate) received: u64,
    pub(crate) issued: u64,
    pub(crate) refused: u64,
    /// Wait for a thread.
    pub(crate) waiting: u64,
    /// Refused because too many were waiting.
    pub(crate) turned_away: u64,
    /// Refused because their address had too many under way.
    pub(crate) turned_away_by_address: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditReport {
    pub(crate) path: String,
    /// Whether what cannot be recorded is not released.
    pub(crate) required: bool,
    pub(crate) bytes: u64,
    pub(crate) failures: u64,
    /// Whether the last record could not be written.
    pub(crate) is_failing: bool,
    pub(crate) last_failure: Option<Failure>,
}

impl Report {
    /// Indented: people read it too.
    pub(crate) fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

impl CertificateReport {
    pub(crate) fn of(certificate: &Certificate) -> Self {
        Self {
            serial: certificate.serial(),
            fingerprint_sha256: certificate.fingerprint(),
            key: certificate.public_key().kind().to_string(),
            not_before: shown(certificate.not_before()),
            not_after: shown(certificate.not_after()),
        }
    }
}

/// As times are written in a report.
pub(crate) fn shown(time: OffsetDateTime) -> String {
    // To the second: what is behind it only blurs the columns. A year beyond 9999 does not format; no certificate has one.
    let time = time.replace_nanosecond(0).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}
