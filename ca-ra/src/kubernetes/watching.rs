//! A watch that goes on for ever.

use std::fmt::Debug;
use std::time::Duration;

use ca_core::{Backoff, random_unit};
use futures_util::StreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Tells `see` of each event. What ends is begun anew, after a wait that grows while it goes badly; `what` names it in the log.
pub(super) async fn for_ever<K>(
    what: &str,
    api: Api<K>,
    config: watcher::Config,
    mut see: impl FnMut(Event<K>),
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // A connection that is gone without a word is given up a few seconds after the API server should have closed the watch.
    let events = watcher::watcher(api, config.timeout(WATCH_SECONDS));
    let mut events = std::pin::pin!(events);
    // Short waits: somebody waits for what the watch tells.
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut is_failing = false;
    loop {
        match events.next().await {
            Some(Ok(event)) => {
                // The first of a list comes before the attempt at it, and says nothing of the API server.
                if !matches!(event, Event::Init) {
                    backoff.reset();
                    if std::mem::take(&mut is_failing) {
                        tracing::info!("the watch on {what} goes on");
                    }
                }
                see(event);
            }
            Some(Err(error)) => {
                // One line for an outage, however long it is.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!("the watch on {what}: {error}");
                }
                tokio::time::sleep(backoff.next(random_unit())).await;
            }
            // The stream has no end.
            None => std::future::pending().await,
        }
    }
}

/// How long an API server keeps a watch open. The library itself asks for five minutes.
const WATCH_SECONDS: u32 = 60;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
