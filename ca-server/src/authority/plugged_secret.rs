//! A CA whose key an operator puts into the Secret `cacerts`, and replaces there while we run: the same as a folder of
//! files, without the minutes until a mounted volume shows what is new.

use std::error::Error;
use std::time::Duration;

use ca_core::{Backoff, BundlePem, BundleStore, CaLayout, KeyCertBundle, random_unit};
use k8s_openapi::api::core::v1::Secret;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;

use super::plugged;
use crate::kubernetes::{Followed, SecretStore, Seen, text_of};

/// The CA in the Secret, and the task that follows it.
#[derive(Debug)]
pub(crate) struct PluggedSecret {
    store: SecretStore,
    changes: watch::Receiver<Seen>,
    followed: Followed,
}

impl PluggedSecret {
    /// What the Secret holds is in use; `changes` rings when it may be something else.
    pub(super) fn new(
        store: SecretStore,
        changes: watch::Receiver<Seen>,
        followed: Followed,
    ) -> Self {
        Self {
            store,
            changes,
            followed,
        }
    }

    /// Makes each new content the bundle to sign with, provided that it verifies.
    pub(crate) async fn keep_current(mut self, bundles: BundleStore) {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        // Also at the start: it may have changed since the server was built.
        loop {
            let retry = match self.store.get().await {
                Ok(secret) => {
                    self.judge(secret.as_ref(), &bundles);
                    backoff.reset();
                    None
                }
                Err(error) => {
                    let place = self.followed.place().display();
                    tracing::warn!("{place} cannot be read: {error}");
                    Some(Instant::now() + backoff.next(random_unit()))
                }
            };
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() {
                    return;
                },
                () = at(retry) => {}
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "an edge: it is judged as of now")]
    fn judge(&self, secret: Option<&Secret>, bundles: &BundleStore) {
        let now = OffsetDateTime::now_utc();
        let current = bundles.current();
        let bundle = match secret.map(parts) {
            None => Err("it is gone".into()),
            Some(Ok(None)) => Err("all files of the CA are gone".into()),
            Some(Ok(Some(parts))) => {
                plugged::successor(self.followed.place(), &parts, Some(&current), now)
            }
            Some(Err(incomplete)) => Err(incomplete.into()),
        };
        match bundle {
            Ok(bundle) if plugged::use_from_now_on(&bundle, bundles) => self.followed.taken(now),
            Ok(_) => self.followed.unchanged(),
            Err(reason) => self.followed.refused(now, &reason.to_string()),
        }
    }
}

/// The CA files in a Secret, in either layout.
pub(super) fn parts(secret: &Secret) -> Result<Option<BundlePem>, ca_core::IncompleteCa> {
    let collected = CaLayout::collect(|name| text_of(secret, name))?;
    Ok(collected.map(|(_, parts)| parts))
}

/// The first bundle.
pub(super) fn first(
    store: &SecretStore,
    parts: &BundlePem,
    now: OffsetDateTime,
) -> Result<KeyCertBundle, Box<dyn Error + Send + Sync>> {
    plugged::successor(&store.place(), parts, None, now)
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
