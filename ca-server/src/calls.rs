//! What comes in on a connection: which service it is for, and how long it may take.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use ca_core::CertificateChain;
use ca_proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use time::OffsetDateTime;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::service::Routes;

use crate::admission::{Admission, Lateness, NotDone, Priority};
use crate::service::Service;
use crate::serving::Peer;
use crate::status::IssueError;

/// All services.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    pub(crate) certificates: IstioCertificateServiceServer<Service>,
    /// Those that nobody is in a hurry for.
    pub(crate) others: Routes,
    pub(crate) admission: Admission,
}

/// The services, for one peer.
#[derive(Clone, Debug)]
pub(crate) struct CallsOf {
    pub(crate) calls: Calls,
    pub(crate) peer: Peer,
    pub(crate) lateness: Lateness,
}

impl CallsOf {
    /// Whether a request comes in too late to be worth reading: its client has gone, or others need the time more.
    fn is_too_late(&self, headers: &HeaderMap, limit: Duration) -> bool {
        let Some(late) = self.lateness.late() else {
            return false;
        };
        #[expect(clippy::disallowed_methods, reason = "an edge: a request comes in now")]
        let now = OffsetDateTime::now_utc();
        let chain = self.peer.client_chain.as_ref();
        // A token may be there because the certificate is not enough.
        let shown = chain
            .map(CertificateChain::leaf)
            .filter(|_| !headers.contains_key(AUTHORIZATION));
        late > Priority::patience(shown, now).min(limit)
    }
}

impl hyper::service::Service<Request<Incoming>> for CallsOf {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let limit = grpc_timeout(request.headers()).map_or(LONGEST, |limit| limit.min(LONGEST));
        let is_certificate = request.uri().path() == CREATE_CERTIFICATE;
        if is_certificate && self.is_too_late(request.headers(), limit) {
            self.lateness.turn_away();
            let status = IssueError::from(NotDone::TurnedAway).to_status();
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        // From here on it counts as something that must be done, also when its turn has not come.
        let place = self.calls.admission.enter();
        request.extensions_mut().insert(self.peer.clone());
        let called = if is_certificate {
            self.calls.certificates.clone().call(request)
        } else {
            let mut others = self.calls.others.clone();
            Box::pin(async move { others.call(request).await }) as _
        };
        Box::pin(async move {
            let _place = place;
            let answered = tokio::time::timeout(limit, called).await;
            answered
                .unwrap_or_else(|_| Ok(Status::deadline_exceeded("not done in time").into_http()))
        })
    }
}

/// What the client waits, as it tells: up to eight digits and a unit. What cannot be read says nothing.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit())
    {
        return None;
    }
    let count = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// No client waits longer, and a message that trickles in does not hold its place for ever.
const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_patience_is_read_as_grpc_writes_it() {
        for (text, limit) in [
            ("1S", Some(Duration::from_secs(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("3M", Some(Duration::from_secs(180))),
            ("5u", Some(Duration::from_micros(5))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("+1S", None),
            ("123456789S", None),
            ("1ü", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", http::HeaderValue::from_str(text).unwrap());
            assert_eq!(grpc_timeout(&headers), limit, "{text}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), None);
    }
}
