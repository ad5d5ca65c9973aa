//! One watch for the Secrets of a namespace, for as long as the agent runs.

use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};

use super::{
    contents::Contents,
    credentials::{Credentials, SecretsByName},
};

/// What nobody shows to a client, and what may be large: the API server leaves it out.
const FIELDS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token";

/// How many are listed at a time. They pass through memory together, whole.
const PAGE: u32 = 50;

/// How long an API server keeps a watch open. A connection that is gone without a word is noticed soon after.
pub(super) const WATCH_SECONDS: u32 = 55;

/// Tells of every Secret and of each change. Never returns, whatever the API server does.
pub(super) async fn follow(
    client: Client,
    namespace: Arc<str>,
    selector: Option<String>,
    credentials: Credentials,
) {
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let mut wanted = watcher::Config::default()
        .fields(FIELDS)
        .page_size(PAGE)
        .timeout(WATCH_SECONDS);
    wanted.label_selector = selector;
    let mut events = std::pin::pin!(watcher(api, wanted).default_backoff());
    // What a new list has said so far: complete at its end.
    let mut listed = SecretsByName::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(secret)) => listed.extend(read(secret)),
            Ok(Event::InitDone) => credentials.list(&namespace, std::mem::take(&mut listed)),
            Ok(Event::Apply(secret)) => {
                if let Some((name, contents)) = read(secret) {
                    credentials.apply(&namespace, &name, contents);
                }
            }
            Ok(Event::Delete(secret)) => {
                if let Some(name) = &secret.metadata.name {
                    credentials.delete(&namespace, name);
                }
            }
            Err(error) => credentials.away(&namespace, &reason(&error)),
        }
    }
}

fn read(secret: Secret) -> Option<(Arc<str>, Contents)> {
    let name = Arc::from(secret.metadata.name.as_deref()?);
    Some((name, Contents::of(secret)))
}

/// One line: what was being done, and why it failed. The library's own repeats an answer of the API server, and hides the cause
/// of all else.
fn reason(error: &watcher::Error) -> String {
    use watcher::Error::{
        InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed,
    };
    match error {
        InitialListFailed(cause) => format!("list of secrets: {}", shown(cause)),
        WatchStartFailed(cause) | WatchFailed(cause) => {
            format!("watch of secrets: {}", shown(cause))
        }
        WatchError(status) => format!("watch of secrets: {} ({})", status.message, status.code),
        NoResourceVersion => error.to_string(),
    }
}

fn shown(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} ({})", status.message, status.code);
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
