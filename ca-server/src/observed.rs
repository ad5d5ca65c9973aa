//! The parts of a running server, as far as pages, metrics and `ca-server status` ask them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ca_auth::{Authenticators, KeyStatus, Policy};
use ca_core::files::{FollowedFiles, Status};
use ca_core::{Certificate, KeyCertBundle, RotationAction, TrustDomain};
use time::OffsetDateTime;

mod cluster_callers;
mod in_cluster;
mod server;
mod waiting;

pub(crate) use in_cluster::InCluster;
pub(crate) use server::Server;
pub(crate) use waiting::Waiting;

use crate::admission::Admission;
use crate::audit::{AuditLog, OnFailure};
use crate::authentication::ClusterCallers;
use crate::authority::rotator::{self, RotationStep, RotatorHandle};
use crate::authority::signing::Signing;
use crate::authority::upstream::{Situation, UpstreamHandle};
use crate::metrics::{Metrics, Verdicts};
use crate::refusals::Refusals;
use crate::report::{
    AuditReport, AuthenticatorReport, CaReport, CertificateReport, Failure, FilesReport,
    KeysReport, NextStep, PolicyReport, Readiness, RegistrationReport, Report, RequestsReport,
    RootReport, RotationReport, ServingReport, UpstreamReport, shown,
};
use crate::serving::ServingStatuses;
use crate::telemetry::SpanCounts;

/// Handles to the parts. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) started: OffsetDateTime,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) kind: &'static str,
    pub(crate) signing: Signing,
    /// Where the CA's key is plugged in: the folder, and what is followed in it.
    pub(crate) files: Option<(PathBuf, FollowedFiles<KeyCertBundle>)>,
    /// Where there is a cluster.
    pub(crate) in_cluster: Option<InCluster>,
    /// Where another CA certifies this one.
    pub(crate) upstream: Option<UpstreamHandle>,
    /// Where the root is ours.
    pub(crate) rotator: Option<RotatorHandle>,
    pub(crate) serving: ServingStatuses,
    pub(crate) authenticators: Arc<Authenticators>,
    /// Where there is a cluster.
    pub(crate) cluster_callers: Option<ClusterCallers>,
    pub(crate) policy: Option<(PathBuf, FollowedFiles<Policy>)>,
    pub(crate) admission: Admission,
    pub(crate) audit: Option<Arc<AuditLog>>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) verdicts: Arc<Verdicts>,
    pub(crate) spans: SpanCounts,
}

impl Observed {
    /// Whether a certificate asked for at `now` would be signed. The listener for requests is open before anybody asks.
    pub(crate) fn readiness(&self, now: OffsetDateTime) -> Readiness {
        let (mut missing, mut notes) = (Vec::new(), Vec::new());
        missing.extend(self.signing.obstacle(now));
        if let Signing::Asked(registration) = &self.signing
            && let Some((at, why)) = registration.situation().failure()
        {
            notes.push(format!("the signer, at {}: {why}", shown(at)));
        }
        if let Some(audit) = self.audit.as_ref().map(|audit| audit.status())
            && audit.failures.is_failing
        {
            let line = format!("the audit log {} cannot be written", audit.path.display());
            match audit.on_failure {
                OnFailure::Refuse => missing.push(line),
                OnFailure::Release => notes.push(line),
            }
        }
        // What is in use is good; that its successor is not is worth a line, but no reason to be taken out of service.
        if let Some((_, files)) = &self.files
            && let Some(reason) = refused_now(&files.status())
        {
            notes.push(format!(
                "the CA's files as they are now are not taken: {reason}"
            ));
        }
        notes.extend(self.in_cluster.iter().flat_map(InCluster::notes));
        if let Some(upstream) = &self.upstream {
            let situation = &upstream.situation;
            if let Some(awaited) = situation.awaited() {
                notes.push(format!("waiting for {awaited}"));
            }
            if let Some((at, why)) = situation.failure() {
                notes.push(format!("{} at {}", why, shown(at)));
            }
        }
        if let Some((path, file)) = &self.policy
            && let Some(reason) = refused_now(&file.status())
        {
            let path = path.display();
            notes.push(format!(
                "the policy {path} as it is now is not taken: {reason}"
            ));
        }
        for status in self.serving.snapshot() {
            let end = status.certificate.as_ref().map(Certificate::not_after);
            if let Some(end) = end.filter(|end| now >= *end) {
                let (name, end) = (&status.name, shown(end));
                let line = format!("the serving certificate of {name} has expired at {end}");
                // Nobody who verifies it connects; to the others, certificates are issued all the same.
                if &**name == "grpc" {
                    missing.push(line);
                } else {
                    notes.push(line);
                }
            }
            if let Some(error) = &status.last_error {
                notes.push(format!("serving certificate of {}: {error}", status.name));
            }
        }
        notes.extend(self.cluster_callers.iter().flat_map(ClusterCallers::notes));
        let authenticators = self.authenticators.status();
        if authenticators.is_empty() {
            notes.push("authentication is switched off: every request is refused".into());
        }
        for authenticator in authenticators {
            let issuer = authenticator.issuer.as_deref().unwrap_or("any issuer");
            if let Some(failure) = authenticator.keys.and_then(|keys| keys.failure) {
                notes.push(format!("the keys of {issuer} could not be read: {failure}"));
            }
        }
        Readiness {
            ready: missing.is_empty(),
            missing,
            notes,
        }
    }

    /// Everything. Waits for a step of the rotator that is under way, but not for long.
    pub(crate) async fn report(&self, now: OffsetDateTime) -> Report {
        let rotation = match &self.rotator {
            Some(rotator) => {
                let asked = rotator.ask(RotationStep::Status);
                let answer = tokio::time::timeout(PATIENCE, asked).await;
                answer.ok().and_then(Result::ok)
            }
            None => None,
        };
        let clock = Clock {
            now,
            instant: Instant::now(),
        };
        let counted = self.metrics.counted();
        Report {
            version: env!("CARGO_PKG_VERSION").into(),
            time: shown(now),
            started: shown(self.started),
            trust_domain: self.trust_domain.to_string(),
            readiness: self.readiness(now),
            ca: self.ca(rotation.as_ref(), clock),
            cluster: self.in_cluster.as_ref().map(InCluster::report),
            serving_certificates: self.serving_certificates(),
            authenticators: self.authenticators(),
            caller_clusters: self
                .cluster_callers
                .as_ref()
                .map(ClusterCallers::report)
                .unwrap_or_default(),
            remote_clusters: self
                .cluster_callers
                .as_ref()
                .map(ClusterCallers::remote_report)
                .unwrap_or_default(),
            policy: self.policy.as_ref().map(|(path, file)| {
                let policy = file.current();
                let (allow, deny, limit) = policy.len();
                PolicyReport {
                    allow,
                    deny,
                    limit,
                    certificate_authority: policy.authorities(),
                    file: clock.files(path, file.generation(), &file.status()),
                }
            }),
            requests: RequestsReport {
                received: counted.received,
                issued: counted.issued,
                refused: self.refusals.count(),
                waiting: self.admission.waiting() as u64,
                turned_away: self.admission.turned_away(),
                turned_away_by_address: counted.turned_away_by_address,
            },
            audit: self.audit.as_ref().map(|audit| clock.audit(audit)),
            refusals: self.refusals.last(),
            waiting: None,
        }
    }

    fn ca(&self, rotation: Option<&rotator::Report>, clock: Clock) -> CaReport {
        let bundle = self.signing.bundle();
        let signing = bundle.as_ref().map(|bundle| bundle.signing_certificate());
        let trusted = match &bundle {
            Some(bundle) => bundle.roots().clone(),
            None => self.signing.roots().current(),
        };
        let role = |fingerprint: &str| {
            let roots = rotation.iter().flat_map(|rotation| &rotation.roots);
            let mut roles = roots
                .filter(|root| root.0 == fingerprint)
                .map(|root| root.2);
            let otherwise = if signing.is_some_and(|signing| fingerprint == signing.fingerprint()) {
                "signs"
            } else {
                "trusted"
            };
            roles.next().unwrap_or(otherwise)
        };
        let roots = trusted.certificates().iter();
        let chain = bundle
            .iter()
            .flat_map(|bundle| bundle.chain().intermediates());
        CaReport {
            kind: self.kind.into(),
            generation: self.signing.generation(),
            signing_certificate: signing.map(CertificateReport::of),
            chain: chain.map(CertificateReport::of).collect(),
            roots: roots
                .map(|root| RootReport {
                    role: role(&root.fingerprint()).into(),
                    certificate: CertificateReport::of(root),
                })
                .collect(),
            rotation: rotation.map(|rotation| RotationReport {
                stage: rotation.stage.into(),
                since: rotation.since.map(shown),
                next: rotation.next.map(|(step, at)| NextStep {
                    step: step_name(step).into(),
                    at: shown(at),
                }),
            }),
            registration: self.registration(),
            upstream: self
                .upstream
                .as_ref()
                .map(|upstream| certified(&upstream.situation)),
            files: self
                .files
                .as_ref()
                .map(|(folder, files)| clock.files(folder, files.generation(), &files.status()))
                .or_else(|| self.in_cluster.as_ref()?.secret()),
        }
    }

    fn registration(&self) -> Option<RegistrationReport> {
        let Signing::Asked(registration) = &self.signing else {
            return None;
        };
        let situation = registration.situation();
        Some(RegistrationReport {
            signer: situation.upstream().to_owned(),
            issuer: registration.issuer(),
            under_way: registration.under_way(),
            last_failure: last_failure(situation),
        })
    }

    fn serving_certificates(&self) -> Vec<ServingReport> {
        let statuses = self.serving.snapshot().into_iter();
        statuses
            .map(|status| {
                let certificate = status.certificate.as_ref();
                let names = certificate.into_iter().flat_map(Certificate::names);
                ServingReport {
                    name: status.name.to_string(),
                    provider: status.provider.into(),
                    names: names.map(ToString::to_string).collect(),
                    certificate: certificate.map(CertificateReport::of),
                    renewal: status.next_renewal.map(shown),
                    last_failure: status.last_error.as_ref().map(ToString::to_string),
                }
            })
            .collect()
    }

    fn authenticators(&self) -> Vec<AuthenticatorReport> {
        let all = self.authenticators.status().into_iter();
        all.map(|each| AuthenticatorReport {
            name: each.name.into(),
            issuer: each.issuer,
            keys: each.keys.map(keys),
        })
        .collect()
    }
}

fn certified(situation: &Situation) -> UpstreamReport {
    UpstreamReport {
        certified_by: situation.upstream().to_owned(),
        renewal: situation.next().map(shown),
        awaited: situation.awaited(),
        last_failure: last_failure(situation),
    }
}

fn last_failure(situation: &Situation) -> Option<Failure> {
    let (at, reason) = situation.failure()?;
    Some(Failure {
        time: shown(at),
        reason,
    })
}

fn keys(keys: KeyStatus) -> KeysReport {
    KeysReport {
        source: keys.place.map(Into::into),
        age_seconds: keys.age.as_ref().map(Duration::as_secs),
        fingerprints: keys.fingerprints,
        last_error: keys.failure.map(Into::into),
    }
}

fn step_name(step: RotationAction) -> &'static str {
    match step {
        RotationAction::Renew => "renew",
        RotationAction::Prepare => "prepare",
        RotationAction::Activate => "activate",
        RotationAction::Retire => "retire",
        _ => "wait",
    }
}

/// Why what is there now is not in use, if so.
fn refused_now(status: &Status) -> Option<String> {
    let refusal = status.last_refusal.as_ref();
    let refusal = refusal.filter(|_| status.is_refused);
    refusal.map(|refusal| refusal.error.to_string())
}

/// One moment by both clocks, so that what the one has seen can be told by the other.
#[derive(Clone, Copy)]
struct Clock {
    now: OffsetDateTime,
    instant: Instant,
}

impl Clock {
    fn at(self, instant: Instant) -> String {
        shown(self.now - self.instant.saturating_duration_since(instant))
    }

    fn files(self, path: &std::path::Path, loads: u64, status: &Status) -> FilesReport {
        FilesReport {
            path: path.display().to_string(),
            loaded: status.published_at.map(|at| self.at(at)),
            loads,
            refusals: status.refusals,
            is_refused: status.is_refused,
            last_refusal: status.last_refusal.as_ref().map(|refusal| Failure {
                time: self.at(refusal.at),
                reason: refusal.error.to_string(),
            }),
        }
    }

    fn audit(self, audit: &AuditLog) -> AuditReport {
        let status = audit.status();
        AuditReport {
            path: status.path.display().to_string(),
            required: status.on_failure == OnFailure::Refuse,
            bytes: status.bytes,
            failures: status.failures.count,
            is_failing: status.failures.is_failing,
            last_failure: status.failures.last.map(|(at, reason)| Failure {
                time: self.at(at),
                reason,
            }),
        }
    }
}

/// A rotation step takes milliseconds; whoever asks how the server is should not wait for a disk that hangs.
const PATIENCE: Duration = Duration::from_secs(2);
