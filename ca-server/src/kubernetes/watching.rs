//! How patient a watch is with an API server that is away.

use std::fmt::Debug;
use std::time::Duration;

use ca_core::random_unit;
use futures_util::Stream;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{Config, Event, Result};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Everything there is, and then each change, for ever. What the library itself would wait for after a long outage is up to a minute:
/// here an API server that is back is noticed within [`LONGEST_WAIT`].
pub(crate) fn watch<K>(api: Api<K>, config: Config) -> impl Stream<Item = Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // A connection that is gone without a word is given up a few seconds after the API server should have closed the watch.
    let config = config.timeout(WATCH_SECONDS);
    watcher(api, config).backoff(Patience(ca_core::Backoff::new(FIRST_WAIT, LONGEST_WAIT)))
}

struct Patience(ca_core::Backoff);

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

/// How long an API server keeps a watch open. The library itself asks for five minutes.
const WATCH_SECONDS: u32 = 60;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
