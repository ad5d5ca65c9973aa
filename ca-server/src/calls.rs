//! What comes in on a connection: whether it may come in at all, which service it is for, and how long it may take.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ca_core::CertificateChain;
use ca_proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use time::OffsetDateTime;
use tonic::Status;
use tonic::codegen::Service as _;
use tonic::service::Routes;

use crate::addresses::Place;
use crate::admission::{Lateness, Priority};
use crate::metrics::Method;
use crate::service::Service;
use crate::serving::Peer;

mod reply;

pub(crate) use reply::Reply;

/// All services.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    pub(crate) certificates: IstioCertificateServiceServer<Service>,
    /// Those that nobody is in a hurry for.
    pub(crate) others: Routes,
    /// The same as behind `certificates`, for requests that do not come so far.
    pub(crate) service: Arc<Service>,
}

/// The services, for one peer.
#[derive(Clone, Debug)]
pub(crate) struct CallsOf {
    pub(crate) calls: Calls,
    pub(crate) peer: Peer,
    pub(crate) lateness: Lateness,
}

impl CallsOf {
    /// The place of somebody who asks for a certificate; or what it is told when it is turned away before it is read.
    fn admit(
        &self,
        method: Method,
        headers: &HeaderMap,
        limit: Duration,
    ) -> Result<Option<Place>, Status> {
        let service = &self.calls.service;
        if self.is_too_late(headers, limit) {
            self.lateness.turn_away();
            return Err(service.turn_away(method, &self.peer));
        }
        let address = self.peer.address.map(|address| address.ip());
        let entered = service.addresses.enter(address);
        entered.map_err(|error| service.refuse_unread(method, &self.peer, error.into()))
    }

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
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Reply>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let limit = grpc_timeout(request.headers()).map_or(LONGEST, |limit| limit.min(LONGEST));
        let path = request.uri().path();
        let is_certificate = path == CREATE_CERTIFICATE;
        let method = match path {
            CREATE_CERTIFICATE => Some(Method::CREATE_CERTIFICATE),
            HANDLE_CSR => Some(Method::HANDLE_CSR),
            _ => None,
        };
        let admitted = method.map(|method| self.admit(method, request.headers(), limit));
        let place = match admitted.transpose() {
            Ok(place) => place.flatten(),
            Err(status) => {
                let refused = status.into_http().map(|body| Reply::new(body, None));
                return Box::pin(std::future::ready(Ok(refused)));
            }
        };
        // From here on it counts as something that must be done, also when its turn has not come.
        let entered = self.calls.service.admission.enter();
        request.extensions_mut().insert(self.peer.clone());
        let called = if is_certificate {
            self.calls.certificates.clone().call(request)
        } else {
            let mut others = self.calls.others.clone();
            Box::pin(async move { others.call(request).await }) as _
        };
        Box::pin(async move {
            let _entered = entered;
            let answered = match tokio::time::timeout(limit, called).await {
                Ok(answered) => answered?,
                Err(_) => Status::deadline_exceeded("not done in time").into_http(),
            };
            Ok(answered.map(|body| Reply::new(body, place)))
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
const HANDLE_CSR: &str = "/istio.v1.auth.IstioCAService/HandleCSR";
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
