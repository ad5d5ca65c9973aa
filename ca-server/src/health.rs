//! `grpc.health.v1.Health` on the listener for requests, for load balancers that look there.

use std::time::Duration;

use ca_proto::istio::v1::auth::istio_certificate_service_server::SERVICE_NAME;
use time::OffsetDateTime;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::authority::signing::Signing;

/// Serving means: a certificate asked for now would be signed. Told for the server as a whole and for the service of
/// certificates; whoever watches is told of changes alone. At the end nobody is served any more, and nobody watches.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge: health is a matter of now"
)]
pub(crate) async fn keep_reported(
    mut reporter: HealthReporter,
    signing: Signing,
    mut end: watch::Receiver<bool>,
) {
    let mut changes = signing.roots().subscribe();
    let mut told = None;
    loop {
        let now = OffsetDateTime::now_utc();
        let status = match signing.obstacle(now) {
            None => ServingStatus::Serving,
            Some(_) => ServingStatus::NotServing,
        };
        if told != Some(status) {
            tell(&reporter, status).await;
            told = Some(status);
        }
        tokio::select! {
            _ = tokio::time::timeout(RECHECK, changes.changed()) => {}
            _ = end.wait_for(|ended| *ended) => break,
        }
    }
    tell(&reporter, ServingStatus::NotServing).await;
    for service in SERVICES {
        // Ends the streams of those who watch: the server would wait for them.
        reporter.clear_service_status(service).await;
    }
    std::future::pending::<()>().await;
}

async fn tell(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}

const SERVICES: [&str; 2] = ["", SERVICE_NAME];

/// Dates pass without an event.
const RECHECK: Duration = Duration::from_secs(10);
