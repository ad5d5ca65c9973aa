//! Tells of each change of one Secret, by one watch for as long as the server runs.

use ca_core::Revision;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;

use super::secret_store::{SecretStore, revision_of};

/// What the last event said. It may be late: **who acts on it reads the Secret itself.**
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing was said yet.
    #[default]
    Nothing,
    Absent,
    Present(Revision),
}

/// Follows the Secret of `store` until nobody listens any more.
pub(crate) async fn follow(store: SecretStore, seen: watch::Sender<Seen>) {
    let api: Api<Secret> = store.api().clone();
    let only = Config::default().fields(&format!("metadata.name={}", store.name()));
    let mut events = std::pin::pin!(super::watch(api, only));
    // What a new list has said so far: complete at its end.
    let mut listed = Seen::Absent;
    let mut is_away = false;
    while let Some(event) = events.next().await {
        let now = match event {
            Ok(Event::Init) => {
                listed = Seen::Absent;
                continue;
            }
            Ok(Event::InitApply(secret)) => {
                listed = Seen::Present(revision_of(&secret));
                continue;
            }
            Ok(Event::InitDone) => listed.clone(),
            Ok(Event::Apply(secret)) => Seen::Present(revision_of(&secret)),
            Ok(Event::Delete(secret)) => {
                tracing::warn!(secret = secret.name_any(), "the CA's Secret was deleted");
                Seen::Absent
            }
            Err(error) => {
                // One line for an outage, however long it is: what is known stays in use.
                if !is_away {
                    tracing::warn!("watch of {} interrupted: {error}", store.place().display());
                }
                is_away = true;
                continue;
            }
        };
        if std::mem::take(&mut is_away) {
            tracing::info!("watch of {} goes on", store.place().display());
        }
        seen.send_if_modified(|seen| {
            let is_new = *seen != now;
            *seen = now;
            is_new
        });
    }
}
