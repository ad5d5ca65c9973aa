//! Requests that are over are deleted: at once by whoever made them, later by whoever finds them.

use std::time::Duration;

use ca_core::{Backoff, random_unit};
use futures_util::StreamExt as _;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::error::{is_passing, shown};
use super::outcome::Outcomes;
use super::requests::Request;

/// Where names of objects go that are not needed any more. Never waits.
#[derive(Clone, Debug)]
pub(super) struct Cleanup(mpsc::Sender<String>);

impl Cleanup {
    pub(super) fn new() -> (Self, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel(MOST_QUEUED);
        (Self(sender), receiver)
    }

    pub(super) fn delete(&self, name: String) {
        if let Err(error) = self.0.try_send(name) {
            tracing::debug!("left for the next sweep: {error}");
        }
    }
}

/// Deletes what comes in, a few at a time. What cannot be deleted after some tries is left for a sweep.
pub(super) async fn delete_all<K: Request>(api: &Api<K>, names: mpsc::Receiver<String>) {
    let names = futures_util::stream::unfold(names, async |mut names| {
        names.recv().await.map(|name| (name, names))
    });
    names
        .for_each_concurrent(AT_ONCE, async |name| delete(api, &name).await)
        .await;
    // Nobody asks for certificates any more.
    std::future::pending::<()>().await;
}

async fn delete<K: Request>(api: &Api<K>, name: &str) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    for _ in 0..MOST_TRIES {
        match tokio::time::timeout(PATIENCE, api.delete(name, &DeleteParams::default())).await {
            Ok(Ok(_)) => return,
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => return,
            Ok(Err(error)) if !is_passing(&error) => {
                let reason = shown(&error);
                return tracing::warn!("certificate request {name} cannot be deleted: {reason}");
            }
            Ok(Err(error)) => {
                let reason = shown(&error);
                tracing::debug!("certificate request {name} not deleted: {reason}");
            }
            Err(_) => tracing::debug!("certificate request {name} not deleted in time"),
        }
        tokio::time::sleep(backoff.next(random_unit())).await;
    }
    tracing::warn!("certificate request {name} is not deleted: left for the next sweep");
}

/// Looks at once and every `age` for requests of ours, of this process or of another, that are older than `age`, and
/// deletes them: whoever waited for them has given up, or is gone.
pub(super) async fn sweep_for_ever<K: Request>(
    api: &Api<K>,
    selector: &str,
    age: Duration,
    outcomes: &Outcomes,
) {
    loop {
        let swept =
            tokio::time::timeout(age.max(PATIENCE), sweep(api, selector, age, outcomes)).await;
        match swept {
            Ok(Ok(0)) => {}
            Ok(Ok(count)) => {
                let under_way = outcomes.count();
                tracing::info!(
                    count,
                    under_way,
                    "certificate requests were left behind: deleted"
                );
            }
            Ok(Err(error)) => {
                tracing::warn!("no look at what was left behind: {}", shown(&error));
            }
            Err(_) => tracing::warn!("no look at what was left behind: no answer in time"),
        }
        tokio::time::sleep(age).await;
    }
}

async fn sweep<K: Request>(
    api: &Api<K>,
    selector: &str,
    age: Duration,
    outcomes: &Outcomes,
) -> Result<usize, kube::Error> {
    let mut page = ListParams::default().labels(selector).limit(PAGE);
    let mut count = 0;
    loop {
        let objects = api.list_metadata(&page).await?;
        for object in &objects.items {
            let name = object.name_any();
            // Who waits knows better than a clock that is ahead of the API server's.
            if is_older(object.creation_timestamp(), age) && !outcomes.are_waited_for(&name) {
                delete(api, &name).await;
                count += 1;
            }
        }
        match objects.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => page = page.continue_token(&more),
            None => return Ok(count),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an edge: objects are as old as they are now"
)]
fn is_older(
    created: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
    age: Duration,
) -> bool {
    created.is_some_and(|created| {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        now.saturating_sub(created.0.as_second()) > i64::try_from(age.as_secs()).unwrap_or(i64::MAX)
    })
}

const MOST_QUEUED: usize = 8192;
const AT_ONCE: usize = 16;
const MOST_TRIES: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const PAGE: u32 = 500;
