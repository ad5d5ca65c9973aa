//! One watch that goes on for ever, and that tells how long ago it last heard of its API server.
//!
//! The watchers of kube-runtime say nothing when an idle watch has been opened again, so that silence and absence look
//! the same. Here every answer counts as a sign of life, and a watch is opened again often enough to have one.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use ca_core::{Backoff, random_unit};
use futures_util::{Stream, TryStreamExt as _};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

/// What is new.
pub(super) enum News<K> {
    /// Everything that there is: what is not among it is gone.
    All(Vec<K>),
    /// Made or changed.
    Applied(K),
    Deleted(K),
    /// Nothing, said by an API server that is there.
    Alive,
    /// It cannot be asked. Told at each attempt.
    Lost(String),
}

/// Tells `hear` what happens to the objects of `api` that have `labels`, for ever.
pub(super) async fn follow<K>(api: Api<K>, labels: Option<&str>, mut hear: impl FnMut(News<K>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        let version = match list(&api, labels).await {
            Ok((all, version)) => {
                hear(News::All(all));
                version
            }
            Err(reason) => {
                hear(News::Lost(reason));
                sleep(backoff.next(random_unit())).await;
                continue;
            }
        };
        watch(&api, labels, version, &mut hear, &mut backoff).await;
        // A list is dear, and the next watch may end like this one.
        sleep(backoff.next(random_unit())).await;
    }
}

/// Everything there is, and as of which version.
async fn list<K>(api: &Api<K>, labels: Option<&str>) -> Result<(Vec<K>, String), String>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut all = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    page.label_selector = labels.map(str::to_owned);
    loop {
        let listed = timeout(LIST_DEADLINE, api.list(&page)).await;
        let listed = listed
            .map_err(|_| "no list in time".to_owned())?
            .map_err(|error| shown(&error))?;
        all.extend(listed.items.into_iter().map(trimmed));
        page.continue_token = listed.metadata.continue_.filter(|token| !token.is_empty());
        if page.continue_token.is_none() {
            return Ok((all, listed.metadata.resource_version.unwrap_or_default()));
        }
    }
}

/// Goes on until what has been missed can no longer be had.
async fn watch<K>(
    api: &Api<K>,
    labels: Option<&str>,
    mut version: String,
    hear: &mut impl FnMut(News<K>),
    backoff: &mut Backoff,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut params = WatchParams::default().timeout(WATCH_SECONDS);
    params.label_selector = labels.map(str::to_owned);
    loop {
        let opened = timeout(OPEN_DEADLINE, api.watch(&params, &version)).await;
        let lost = match opened {
            Err(_) => "no watch in time".to_owned(),
            Ok(Err(error)) if is_gone(&error) => return,
            Ok(Err(error)) => shown(&error),
            Ok(Ok(events)) => {
                hear(News::Alive);
                let since = Instant::now();
                match listen(pin!(events), &mut version, hear).await {
                    // Its time was over. If not, the next one must not follow at once.
                    End::Closed { heard } if heard || since.elapsed() >= WELL_LIVED => {
                        backoff.reset();
                        continue;
                    }
                    End::Closed { .. } => "closed without a word".to_owned(),
                    End::Gone => return,
                    End::Lost(reason) => reason,
                }
            }
        };
        hear(News::Lost(lost));
        sleep(backoff.next(random_unit())).await;
    }
}

/// How a watch ended.
enum End {
    Closed {
        heard: bool,
    },
    /// What has happened since the last version is no longer known.
    Gone,
    Lost(String),
}

async fn listen<K>(
    mut events: impl Stream<Item = kube::Result<WatchEvent<K>>> + Unpin,
    version: &mut String,
    hear: &mut impl FnMut(News<K>),
) -> End
where
    K: Resource,
{
    let mut heard = false;
    loop {
        let event = match timeout(SILENCE, events.try_next()).await {
            Err(_) => return End::Lost("silent for too long".into()),
            Ok(Err(error)) if is_gone(&error) => return End::Gone,
            Ok(Err(error)) => return End::Lost(shown(&error)),
            Ok(Ok(None)) => return End::Closed { heard },
            Ok(Ok(Some(event))) => event,
        };
        heard = true;
        let mut seen = |object: &K| {
            if let Some(newer) = object.resource_version() {
                *version = newer;
            }
        };
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                seen(&object);
                hear(News::Applied(trimmed(object)));
            }
            WatchEvent::Deleted(object) => {
                seen(&object);
                hear(News::Deleted(object));
            }
            WatchEvent::Bookmark(bookmark) => {
                *version = bookmark.metadata.resource_version;
                hear(News::Alive);
            }
            WatchEvent::Error(status) if status.code == GONE => return End::Gone,
            WatchEvent::Error(status) => return End::Lost(status.message),
        }
    }
}

/// Without what nobody here reads, which is the most of it: a list holds all objects at once.
fn trimmed<K: Resource>(mut object: K) -> K {
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    metadata.annotations = None;
    metadata.labels = None;
    metadata.owner_references = None;
    object
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == GONE)
}

/// One line. The library's own repeats an answer of the API server twice, and hides the cause of all else.
pub(super) fn shown(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} ({})", status.message, status.code);
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        let deeper_text = deeper.to_string();
        if !text.contains(&deeper_text) {
            text.push_str(": ");
            text.push_str(&deeper_text);
        }
        cause = deeper.source();
    }
    text
}

const GONE: u16 = 410;
const PAGE: u32 = 500;
/// How long an API server keeps a watch open: an idle one is heard of this often.
const WATCH_SECONDS: u32 = 30;
/// A watch in which nothing happened, not even a bookmark, and that was not cut off: API servers count in whole seconds.
const WELL_LIVED: Duration = Duration::from_secs(WATCH_SECONDS as u64 - 2);
/// A connection that is gone without a word is given up after this long.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// For one page.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::super::scripted::ApiServer;
    use super::*;

    /// What is heard in five minutes.
    async fn heard(watches_end_after: Duration) -> (usize, Vec<String>) {
        let server = ApiServer::default();
        server.closes_watches_after(watches_end_after);
        let (mut alive, mut lost) = (0, Vec::new());
        let following = follow(Api::<Pod>::all(server.client()), None, |news| match news {
            News::Alive => alive += 1,
            News::Lost(reason) => lost.push(reason),
            News::All(_) | News::Applied(_) | News::Deleted(_) => {}
        });
        let _ = timeout(Duration::from_secs(300), following).await;
        (alive, lost)
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_in_which_nothing_has_happened_is_no_loss_when_its_time_is_over() {
        let (alive, lost) = heard(Duration::from_secs(WATCH_SECONDS.into())).await;
        assert_eq!(alive, 10);
        assert_eq!(lost, [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_never_be_watched_is_not_listed_again_and_again_without_a_pause() {
        let server = ApiServer::default();
        server.refuses_watches_with(GONE);
        let mut lists = 0;
        let following = follow(Api::<Pod>::all(server.client()), None, |news| {
            lists += u32::from(matches!(news, News::All(_)));
        });
        let _ = timeout(Duration::from_secs(300), following).await;
        assert!((60..200).contains(&lists), "{lists}");
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_are_closed_at_once_are_told_and_waited_between() {
        let (alive, lost) = heard(Duration::ZERO).await;
        assert!((30..600).contains(&alive), "{alive}");
        assert!(lost.iter().all(|reason| reason == "closed without a word"));
    }
}
