//! A watch that goes on for ever.

use std::fmt::Debug;
use std::time::Duration;

use ca_core::random_unit;
use futures_util::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
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
    let events = watcher::watcher(api, config).backoff(Patience::new());
    let mut events = std::pin::pin!(events);
    let mut is_failing = false;
    loop {
        match events.next().await {
            Some(Ok(event)) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("the watch on {what} goes on");
                }
                see(event);
            }
            Some(Err(error)) => {
                is_failing = true;
                tracing::warn!("the watch on {what}: {error}");
            }
            // The stream has no end.
            None => std::future::pending().await,
        }
    }
}

/// Short waits: somebody waits for what the watch tells.
struct Patience(ca_core::Backoff);

impl Patience {
    fn new() -> Self {
        Self(ca_core::Backoff::new(FIRST_WAIT, LONGEST_WAIT))
    }
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next(random_unit()))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.0.reset();
    }
}

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
