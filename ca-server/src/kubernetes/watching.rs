//! How patient a watch is with an API server that is away.

use std::fmt::Debug;
use std::time::Duration;

use ca_core::{Backoff, random_unit};
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use kube::runtime::watcher;
use kube::runtime::watcher::{Config, Event, Result};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

/// Everything there is, and then each change, for ever. What the library itself would wait for after a long outage is up to a minute:
/// here an API server that is back is noticed within [`LONGEST_WAIT`].
pub(crate) fn watch<K>(api: Api<K>, config: Config) -> impl Stream<Item = Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // A connection that is gone without a word is given up a few seconds after the API server should have closed the watch.
    let config = config.timeout(WATCH_SECONDS);
    let state = (
        watcher(api, config).boxed(),
        Backoff::new(FIRST_WAIT, LONGEST_WAIT),
        None,
    );
    unfold(state, async |(mut events, mut backoff, rest)| {
        if let Some(rest) = rest {
            sleep(rest).await;
        }
        let event = events.next().await?;
        let rest = match &event {
            Err(_) => Some(backoff.next(random_unit())),
            // Comes before each attempt at a list, and says nothing of the API server.
            Ok(Event::Init) => None,
            Ok(_) => {
                backoff.reset();
                None
            }
        };
        Some((event, (events, backoff, rest)))
    })
}

/// How long an API server keeps a watch open. The library itself asks for five minutes.
const WATCH_SECONDS: u32 = 60;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use kube::Client;
    use tokio::time::{Instant, timeout_at};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_lists_nothing_is_asked_less_and_less_often() {
        let refuses = tower::service_fn(async |_: http::Request<kube::client::Body>| {
            let status = r#"{"kind":"Status","status":"Failure","code":403,"message":"no"}"#;
            let answer = http::Response::builder().status(403);
            answer.body(kube::client::Body::from(status.as_bytes().to_vec()))
        });
        let api = Api::<Secret>::all(Client::new(refuses, "mesh"));
        let mut events = std::pin::pin!(watch(api, Config::default()));
        let (end, mut failures) = (Instant::now() + Duration::from_secs(120), 0);
        while let Ok(Some(event)) = timeout_at(end, events.next()).await {
            failures += u32::from(event.is_err());
        }
        // Every 5 s at the longest, each wait half of that to all of it.
        assert!((24..60).contains(&failures), "{failures}");
    }
}
