//! One request, from top to bottom.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use ca_auth::{Authenticators, Authorizer, Caller, Evidence, Grant, RuleName, Source};
use ca_core::crypto::AWS_LC_RS;
use ca_core::{
    CertificateAuthority, CertificateChain, Csr, IssuedChain, SigningRequest, SubjectName,
    TtlPolicy,
};
use ca_proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use ca_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use futures_util::FutureExt as _;
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use crate::addresses::Addresses;
use crate::admission::{Admission, NotDone, Priority};
use crate::audit::{AuditLog, Record};
use crate::authority::subordinate::SubordinateAuthorities;
use crate::evidence::{self, Wish};
use crate::metrics::{Method, Metrics, Stage};
use crate::refusals::{Refusals, Refused};
use crate::report::shown;
use crate::serving::Peer;
use crate::status::IssueError;
use crate::telemetry::{Step, Telemetry, Trace};

mod subordinate;

/// `istio.v1.auth.IstioCertificateService`.
#[derive(Debug)]
pub struct Service {
    pub(crate) authenticators: Arc<Authenticators>,
    pub(crate) authorizer: Authorizer,
    pub(crate) ttl: TtlPolicy,
    pub(crate) addresses: Addresses,
    pub(crate) admission: Admission,
    pub(crate) authority: Arc<dyn CertificateAuthority>,
    /// For those whom the policy lets be a CA below this one. `None`: there is no CA here that they could be below.
    pub(crate) subordinates: Option<SubordinateAuthorities>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) audit: Option<Arc<AuditLog>>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) telemetry: Telemetry,
}

impl Service {
    /// One request. Who is asked comes in the order in which a refusal helps the caller most and costs us least: identity
    /// before the signature of the CSR, its own mistakes before ours.
    async fn issue(
        &self,
        evidence: &Evidence,
        wish: Wish,
        now: OffsetDateTime,
        trace: &Trace,
    ) -> Outcome {
        let step = trace.step(Step::Authenticate);
        let caller = match self.authenticators.authenticate(evidence, now).await {
            Ok(caller) => caller,
            Err(error) => return Outcome::refused(error),
        };
        trace.caller(&caller);
        let shown = evidence.client_chain().map(CertificateChain::leaf);
        let priority = Priority::of(&caller, shown, now);
        let step = step.then(Step::Authorize);
        let (asked, on_behalf_of) = (caller.clone(), wish.on_behalf_of.as_deref());
        let (rules, result) = if wish.authority {
            let grant = self.authorizer.authorize_authority(asked, on_behalf_of);
            step.end();
            match grant {
                Ok(grant) => (
                    grant.rules().into(),
                    self.certify_authority(&grant, wish, priority, now, trace)
                        .await,
                ),
                Err(error) => (Box::default(), Err(error.into())),
            }
        } else {
            let grant = self.authorizer.authorize(asked, on_behalf_of);
            step.end();
            match grant {
                Ok(grant) => (
                    grant.rules().into(),
                    self.certify(grant, wish, priority, now, trace).await,
                ),
                Err(error) => (Box::default(), Err(error.into())),
            }
        };
        Outcome {
            caller: Some(caller),
            rules,
            result,
        }
    }

    async fn certify(
        &self,
        grant: Grant,
        wish: Wish,
        priority: Priority,
        now: OffsetDateTime,
        trace: &Trace,
    ) -> Result<IssuedChain, IssueError> {
        // Three quarters of the work on a request: it waits its turn for it, off the threads that serve connections.
        let pem = wish.csr_pem;
        let (step, queued) = (trace.step(Step::Queue), Instant::now());
        let check = move || {
            let (waited, started) = (queued.elapsed(), Instant::now());
            let csr = Csr::from_pem_with(pem.as_bytes(), &AWS_LC_RS);
            (waited, started.elapsed(), csr)
        };
        let (waited, checked, csr) = self
            .admission
            .run(priority, grant.identities()[0].as_str(), check)
            .await?;
        self.metrics.stage(Stage::Wait, waited);
        self.metrics.stage(Stage::Check, checked);
        step.was_followed_by(waited, Step::Check, checked);
        let csr = csr?;
        grant.check_key(csr.public_key().kind())?;
        let lifetime = grant.lifetime(self.ttl.resolve(wish.ttl)?);
        let names = grant
            .into_identities()
            .into_iter()
            .map(SubjectName::from)
            .collect();
        let request = SigningRequest::new(csr, names, lifetime).with_signer(wish.signer);
        let (step, started) = (trace.step(Step::Sign), Instant::now());
        let signed = self.authority.sign(request, now).await;
        step.end();
        self.metrics.stage(Stage::Sign, started.elapsed());
        Ok(signed?)
    }

    /// One outcome: one count, one line, one audit record. An outcome that must be recorded and cannot be is a refusal.
    fn record(
        &self,
        outcome: Outcome,
        evidence: &Evidence,
        now: OffsetDateTime,
        started: Instant,
    ) -> Result<IssuedChain, IssueError> {
        let Outcome {
            caller,
            rules,
            mut result,
        } = outcome;
        if let Some(audit) = &self.audit {
            let record = Record::new(now, evidence, caller.as_ref(), &result).with_rules(&rules);
            let written = audit.write(&record);
            result = result.and_then(|issued| written.map(|()| issued).map_err(IssueError::Audit));
        }
        let peer = evidence.peer_address().map(|address| address.to_string());
        let names = caller.as_ref().map(|c| joined(c.identities.as_slice()));
        let authenticator = caller.as_ref().map(|c| c.authenticator);
        match &result {
            Ok(issued) => {
                self.metrics.issued(started.elapsed());
                let leaf = issued.chain().leaf();
                // The words are those of the audit log.
                let (token_issuer, certificate_serial) = match caller.as_ref().map(|c| &c.source) {
                    Some(Source::Token { issuer }) => (issuer.as_deref(), None),
                    Some(Source::ClientCertificate { serial }) => (None, Some(&**serial)),
                    _ => (None, None),
                };
                tracing::info!(
                    names = joined(leaf.names()),
                    serial = leaf.serial(),
                    not_after = shown(leaf.not_after()),
                    ca = leaf.is_ca(),
                    caller = names,
                    authenticator,
                    token_issuer,
                    certificate_serial,
                    rules = joined(&rules),
                    peer,
                    "issued"
                );
            }
            Err(error) => {
                self.metrics.refused(error.refused());
                let refused = Refused::new(now, evidence, caller.as_ref(), error);
                self.refusals.add(refused);
                tracing::warn!(
                    peer,
                    cluster = evidence.cluster(),
                    caller = names,
                    authenticator,
                    reason = error.to_string(),
                    "refused"
                );
            }
        }
        result
    }
}

/// How a request ended, and who asked, if that is known.
struct Outcome {
    caller: Option<Caller>,
    /// Those that granted the names and limited the certificate.
    rules: Box<[RuleName]>,
    result: Result<IssuedChain, IssueError>,
}

impl Outcome {
    fn refused(error: impl Into<IssueError>) -> Self {
        Self {
            caller: None,
            rules: Box::default(),
            result: Err(error.into()),
        }
    }
}

/// As one text, which the log shows in quotes.
fn joined<T: ToString>(all: &[T]) -> String {
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    all.join(", ")
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let issued = self.answer(Method::CREATE_CERTIFICATE, request).await?;
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: issued.to_elements(),
        }))
    }
}

impl Service {
    /// One request, whichever method brought it, with its record.
    #[expect(clippy::disallowed_methods, reason = "an edge: a request happens now")]
    pub(crate) async fn answer(
        &self,
        method: Method,
        request: Request<IstioCertificateRequest>,
    ) -> Result<IssuedChain, Status> {
        // Both end as canceled when the caller goes and this future with it.
        let (now, started) = (OffsetDateTime::now_utc(), Instant::now());
        let trace = self
            .telemetry
            .begin(&method, request.metadata(), (now, started));
        let call = self.metrics.begin(method);
        self.metrics.csr_received();
        let (evidence, wish) = evidence::read(request);
        // A panic would end the connection and with it the requests of others on it.
        let outcome = AssertUnwindSafe(self.issue(&evidence, wish, now, &trace))
            .catch_unwind()
            .await;
        let outcome = outcome.unwrap_or_else(|_| Outcome::refused(NotDone::Panicked));
        // Recorded before it is released: what is out is on the record.
        let result = self
            .record(outcome, &evidence, now, started)
            .map_err(|error| error.to_status());
        call.end(&result);
        trace.end(&result);
        result
    }

    /// A request that is refused for where it comes from, before it is read: with its count, its line and its record, like any
    /// other.
    #[expect(clippy::disallowed_methods, reason = "an edge: a request happens now")]
    pub(crate) fn refuse_unread(&self, method: Method, peer: &Peer, error: IssueError) -> Status {
        let (now, started) = (OffsetDateTime::now_utc(), Instant::now());
        let status = error.to_status();
        self.count_unread(method, &status);
        // What comes of it is the same refusal.
        let _ = self.record(
            Outcome::refused(error),
            &evidence::of_peer(peer),
            now,
            started,
        );
        status
    }

    /// One of the many that come in too late, which is not read. It is counted and on the record; a line for each would be more
    /// than anybody reads, and the admission writes one each second for all of them.
    #[expect(clippy::disallowed_methods, reason = "an edge: a request happens now")]
    pub(crate) fn turn_away(&self, method: Method, peer: &Peer) -> Status {
        let outcome = Outcome::refused(NotDone::TurnedAway).result;
        let status = IssueError::from(NotDone::TurnedAway).to_status();
        self.count_unread(method, &status);
        if let Some(audit) = &self.audit {
            let (evidence, now) = (evidence::of_peer(peer), OffsetDateTime::now_utc());
            // It is refused in any case. What cannot be written is in the log and in a metric.
            let _ = audit.write(&Record::new(now, &evidence, None, &outcome));
        }
        status
    }

    fn count_unread(&self, method: Method, status: &Status) {
        self.metrics.csr_received();
        self.metrics.begin_unread(method).refused(status);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::Path;
    use std::time::Duration;

    use ca_auth::Transport;
    use ca_core::testing::{TestCa, now};
    use ca_core::{PrivateKey, create_csr_pem};
    use clap::Parser as _;
    use serde_json::json;
    use tonic::Code;

    use super::*;
    use crate::admission::Limits;
    use crate::args::Args;
    use crate::audit::{OnFailure, RotationLimits};
    use crate::authority::signing::Signing;
    use crate::logging::testing::Log;
    use crate::serving::ServingStatuses;
    use crate::telemetry;

    fn service(audit: &Path) -> Service {
        let signing = Signing::Own(TestCa::new("td").bundles());
        let one = NonZeroUsize::MIN;
        let limits = Limits {
            waiting: one,
            waiting_of_one_caller: one,
        };
        let admission = Admission::start(one, limits).unwrap();
        let limits = RotationLimits {
            max_bytes: u64::MAX,
            keep: 1,
        };
        let args = Args::try_parse_from(["ca-server"]).unwrap();
        let telemetry = telemetry::Config::new(args.telemetry).unwrap();
        Service {
            authenticators: Arc::new(Authenticators::new(Vec::new())),
            authorizer: Authorizer::own_names(),
            ttl: TtlPolicy::default(),
            addresses: Addresses::limited_to(None),
            admission: admission.clone(),
            authority: signing.authority(),
            subordinates: None,
            metrics: Metrics::new(signing, None, admission, ServingStatuses::default()),
            audit: Some(Arc::new(
                AuditLog::open(audit, limits, OnFailure::Refuse).unwrap(),
            )),
            refusals: Arc::default(),
            telemetry: telemetry::start(telemetry).0,
        }
    }

    #[test]
    fn the_log_tells_each_thing_in_a_field_of_its_own_and_leaves_out_what_there_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let service = service(&folder.path().join("audit.log"));
        let ca = TestCa::new("td");
        let key = PrivateKey::generate(Default::default()).unwrap();
        let csr = Csr::from_pem(create_csr_pem(&key, &[]).unwrap().as_bytes()).unwrap();
        let name = ca.id("shop", "cart");
        let lifetime = Duration::from_secs(600);
        let issued = ca.issue(&csr, &[name.clone().into()], lifetime, now());
        let end = shown(issued.chain().leaf().not_after());
        let source = Source::Token {
            issuer: Some("https://issuer".into()),
        };
        let evidence = Evidence::new(Transport::Tls { client_chain: None })
            .with_peer_address("10.0.0.7:4711".parse().unwrap());
        let log = Log::begin();
        let outcome = Outcome {
            caller: Some(Caller::new("jwt", source, name.into(), now())),
            rules: [RuleName::OWN].into(),
            result: Ok(issued.clone()),
        };
        assert!(
            service
                .record(outcome, &evidence, now(), Instant::now())
                .is_ok()
        );
        let nobody = Outcome::refused(NotDone::TurnedAway);
        assert!(
            service
                .record(nobody, &evidence, now(), Instant::now())
                .is_err()
        );

        let [told_issued, told_refused] = &log.lines()[..] else {
            panic!("not two lines: {:?}", log.lines());
        };
        let fields = |line: &serde_json::Value| {
            let mut line = line.as_object().unwrap().clone();
            line.retain(|key, _| !["timestamp", "level", "target"].contains(&key.as_str()));
            serde_json::Value::from(line)
        };
        assert_eq!(
            fields(told_issued),
            json!({
                "message": "issued",
                "names": "spiffe://td/ns/shop/sa/cart",
                "serial": issued.chain().leaf().serial(),
                "not_after": end,
                "ca": false,
                "caller": "spiffe://td/ns/shop/sa/cart",
                "authenticator": "jwt",
                "token_issuer": "https://issuer",
                "rules": "own identity",
                "peer": "10.0.0.7:4711",
            })
        );
        assert!(end.ends_with('Z') && end.contains('T'), "{end}");
        assert_eq!(
            fields(told_refused),
            json!({
                "message": "refused",
                "reason": "too many requests are waiting",
                "peer": "10.0.0.7:4711",
            })
        );
    }

    #[test]
    fn who_comes_too_late_is_counted_and_on_the_record_without_being_read() {
        let folder = tempfile::tempdir().unwrap();
        let audit = folder.path().join("audit.log");
        let service = service(&audit);
        let peer = Peer {
            address: Some("10.0.0.7:4711".parse().unwrap()),
            client_chain: None,
        };
        let status = service.turn_away(Method::CREATE_CERTIFICATE, &peer);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(service.metrics.counted().received, 1);
        let text = std::fs::read_to_string(&audit).unwrap();
        let record: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(record["outcome"], "refused");
        assert_eq!(record["reason"], "too many requests are waiting");
        assert_eq!(record["peer"], "10.0.0.7:4711");
        assert_eq!(record.get("caller"), None);
        // Those that tell an operator more are not pushed out by it.
        assert!(service.refusals.last().is_empty());

        // A record that cannot be written changes nothing.
        let full = self::service(Path::new("/dev/full"));
        let status = full.turn_away(Method::HANDLE_CSR, &peer);
        assert_eq!(status.code(), Code::ResourceExhausted);
    }
}
