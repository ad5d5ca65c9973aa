//! `grpc.health.v1.Health` on the listener for requests, for load balancers that look there.

use std::time::Duration;

use ca_core::BundleStore;
use ca_proto::istio::v1::auth::istio_certificate_service_server::SERVICE_NAME;
use time::OffsetDateTime;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Serving means: a certificate asked for now would be signed. Told for the server as a whole and for the service of
/// certificates.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge: health is a matter of now"
)]
pub(crate) async fn keep_reported(reporter: HealthReporter, bundles: BundleStore) {
    let mut changes = bundles.subscribe();
    let mut bundle = bundles.current();
    loop {
        let now = OffsetDateTime::now_utc();
        let status = if bundle.not_before() <= now && now < bundle.not_after() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in ["", SERVICE_NAME] {
            reporter.set_service_status(service, status).await;
        }
        if let Ok(next) = tokio::time::timeout(RECHECK, changes.changed()).await {
            bundle = next;
        }
    }
}

/// Dates pass without an event.
const RECHECK: Duration = Duration::from_secs(10);
