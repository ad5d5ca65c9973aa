//! What is known of the Secrets, who wants which, and what of that is served.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use time::OffsetDateTime;
use tokio::sync::{Notify, watch};

use super::{contents::Contents, judge, namespaces::Namespaces};
use crate::{
    clock,
    metrics::Metrics,
    secrets::{CredentialName, SecretName, Shelf, TooMany},
};

/// How many names are served at most: any client can ask for any.
const MOST_NAMES: usize = 1024;

/// The credentials of a gateway. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Credentials(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    namespaces: Namespaces,
    shelf: watch::Sender<Arc<Shelf>>,
    metrics: Arc<Metrics>,
    /// Held while a name is judged, which takes less than a millisecond, so that nothing older comes onto the shelf after
    /// something newer.
    state: Mutex<State>,
    /// Rung when something may become fit earlier than was thought.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct State {
    known: BTreeMap<Arc<str>, Known>,
    wanted: BTreeMap<SecretName, Wanted>,
}

/// The Secrets of one namespace, by name.
pub(super) type SecretsByName = BTreeMap<Arc<str>, Contents>;

/// One namespace.
#[derive(Debug, Default)]
struct Known {
    /// None: they have not been listed yet, and nothing can be said of any.
    secrets: Option<SecretsByName>,
    /// Why nothing is heard of changes.
    trouble: Option<Arc<str>>,
}

/// A name that somebody wants, or has wanted.
#[derive(Debug, Default)]
struct Wanted {
    /// How many clients. Nobody: the last good value stays until the place is needed, for a client that comes back.
    users: usize,
    /// Why what there is now is not served.
    trouble: Option<Arc<str>>,
    /// When that may change by itself.
    fit_from: Option<OffsetDateTime>,
}

/// Keeps a credential served. Dropped when its user wants it no more.
#[derive(Debug)]
pub(crate) struct FollowingCredential {
    name: SecretName,
    credentials: Credentials,
}

/// How it goes with one namespace.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) namespace: Arc<str>,
    /// How many Secrets are known; none before the first list.
    pub(crate) secrets: Option<usize>,
    pub(crate) trouble: Option<Arc<str>>,
}

impl Credentials {
    pub(crate) fn new(
        shelf: watch::Sender<Arc<Shelf>>,
        metrics: Arc<Metrics>,
        namespaces: Namespaces,
    ) -> Self {
        let known = namespaces.all().map(|name| (name, Known::default()));
        let state = State {
            known: known.collect(),
            wanted: BTreeMap::new(),
        };
        Self(Arc::new(Inner {
            namespaces,
            shelf,
            metrics,
            state: Mutex::new(state),
            sooner: Notify::new(),
        }))
    }

    pub(super) fn namespaces(&self) -> &Namespaces {
        &self.0.namespaces
    }

    /// Serves what `name` stands for, as soon as that is there.
    ///
    /// # Errors
    ///
    /// When too many names are in use.
    pub(crate) fn follow(&self, name: &SecretName) -> Result<FollowingCredential, TooMany> {
        let mut state = self.state();
        if state.wanted.len() >= MOST_NAMES && !state.wanted.contains_key(name) {
            let mut wanted = state.wanted.iter();
            let unused =
                wanted.find_map(|(name, wanted)| (wanted.users == 0).then(|| name.clone()));
            let unused = unused.ok_or(TooMany {
                most: MOST_NAMES,
                of: "names of credentials",
            })?;
            state.wanted.remove(&unused);
            self.take_away(&unused);
        }
        state.wanted.entry(name.clone()).or_default().users += 1;
        self.judge(&mut state, name, clock::now());
        Ok(FollowingCredential {
            name: name.clone(),
            credentials: self.clone(),
        })
    }

    /// These and no others are the Secrets of a namespace.
    pub(super) fn list(&self, namespace: &Arc<str>, secrets: SecretsByName) {
        self.change(namespace, |known| {
            known.secrets = Some(secrets);
            |_: &CredentialName| true
        });
    }

    /// One Secret is new or has changed.
    pub(super) fn apply(&self, namespace: &Arc<str>, name: &str, contents: Contents) {
        self.change(namespace, |known| {
            if let Some(secrets) = &mut known.secrets {
                secrets.insert(name.into(), contents);
            }
            |wanted: &CredentialName| is_about(wanted, name)
        });
    }

    /// One Secret is no more.
    pub(super) fn delete(&self, namespace: &Arc<str>, name: &str) {
        self.change(namespace, |known| {
            if let Some(secrets) = &mut known.secrets {
                secrets.remove(name);
            }
            |wanted: &CredentialName| is_about(wanted, name)
        });
    }

    /// Nothing is heard of changes, for this reason. What is known stays in use.
    pub(super) fn away(&self, namespace: &Arc<str>, reason: &str) {
        self.0.metrics.credential_watch_failures.inc();
        let mut state = self.state();
        let Some(known) = state.known.get_mut(namespace) else {
            return;
        };
        // One line for an outage, however long it is.
        if known.trouble.is_none() {
            tracing::warn!(%namespace, reason, "changes of secrets are not heard of");
        }
        known.trouble = Some(reason.into());
    }

    /// Judges again what becomes fit by itself. Never returns.
    pub(super) async fn judge_again_when_due(self) {
        loop {
            let sooner = self.0.sooner.notified();
            let due = self
                .state()
                .wanted
                .values()
                .filter_map(|wanted| wanted.fit_from)
                .min();
            let wait = async {
                match due {
                    Some(at) => clock::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sooner => continue,
                () = wait => {}
            }
            let now = clock::now();
            let mut state = self.state();
            let is_due = |wanted: &Wanted| wanted.fit_from.is_some_and(|at| at <= now);
            let due = state.wanted.iter().filter(|(_, wanted)| is_due(wanted));
            let due: Vec<_> = due.map(|(name, _)| name.clone()).collect();
            for name in due {
                self.judge(&mut state, &name, now);
            }
        }
    }

    /// Every name of which something is not served, with the reason.
    pub(crate) fn troubles(&self) -> Vec<(SecretName, Arc<str>)> {
        self.state()
            .wanted
            .iter()
            .filter_map(|(name, wanted)| Some((name.clone(), wanted.trouble.clone()?)))
            .collect()
    }

    /// How it goes with each namespace.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let state = self.state();
        let standing = |(namespace, known): (&Arc<str>, &Known)| Standing {
            namespace: Arc::clone(namespace),
            secrets: known.secrets.as_ref().map(BTreeMap::len),
            trouble: known.trouble.clone(),
        };
        state.known.iter().map(standing).collect()
    }

    /// Changes what is known of a namespace, and judges those names again that the change says.
    fn change<Concerns>(&self, namespace: &Arc<str>, change: impl FnOnce(&mut Known) -> Concerns)
    where
        Concerns: Fn(&CredentialName) -> bool,
    {
        let mut state = self.state();
        let Some(known) = state.known.get_mut(namespace) else {
            return;
        };
        if known.trouble.take().is_some() {
            tracing::info!(%namespace, "changes of secrets are heard of again");
        }
        let concerns = change(known);
        let namespaces = &self.0.namespaces;
        let names = state.wanted.keys().filter(|name| {
            credential(name)
                .is_some_and(|name| namespaces.of(name) == Ok(namespace) && concerns(name))
        });
        let names: Vec<_> = names.cloned().collect();
        let now = clock::now();
        for name in names {
            self.judge(&mut state, &name, now);
        }
    }

    /// Puts what there is for `name` onto the shelf, or says why not.
    fn judge(&self, state: &mut State, name: &SecretName, now: OffsetDateTime) {
        let State { known, wanted } = state;
        let (Some(wanted), Some(credential)) = (wanted.get_mut(name), credential(name)) else {
            return;
        };
        wanted.fit_from = None;
        let namespace = match self.0.namespaces.of(credential) {
            Ok(namespace) => namespace,
            Err(error) => return self.refuse(name, wanted, &error),
        };
        let Some(secrets) = known
            .get(namespace)
            .and_then(|known| known.secrets.as_ref())
        else {
            // Whoever asks waits for the first list.
            return;
        };
        let exact = secrets.get(credential.secret());
        // A Secret that is named for the CA counts even if it holds none: somebody has meant it.
        let beside = || secrets.get(credential.secret_of_pair()?);
        let Some(contents) = exact.or_else(beside) else {
            if self.take_away(name) {
                tracing::warn!(%name, "its secret was deleted; clients keep what they have");
            }
            let secret = credential.secret();
            return self.refuse(
                name,
                wanted,
                &format_args!("secret {namespace}/{secret} not found"),
            );
        };
        match judge::secret(name, contents, now) {
            Ok(secret) => {
                wanted.trouble = None;
                let secret = Arc::new(secret);
                let put = [(name.clone(), Arc::clone(&secret))];
                let changed = self
                    .0
                    .shelf
                    .send_if_modified(|shelf| Arc::make_mut(shelf).put(put, now));
                if changed {
                    tracing::info!(%name, version = %secret.version(), "read from a secret");
                }
            }
            Err(unfit) => {
                wanted.fit_from = unfit.fit_from();
                if wanted.fit_from.is_some() {
                    self.0.sooner.notify_one();
                }
                self.refuse(name, wanted, &unfit);
            }
        }
    }

    fn refuse(&self, name: &SecretName, wanted: &mut Wanted, reason: &dyn std::fmt::Display) {
        let reason = Arc::from(reason.to_string());
        if wanted.trouble.as_ref() != Some(&reason) {
            self.0.metrics.credential_refusals.inc();
            tracing::warn!(%name, %reason, "the secret is not served");
            wanted.trouble = Some(reason);
        }
    }

    /// Clients keep what they have; whoever comes later gets nothing.
    fn take_away(&self, name: &SecretName) -> bool {
        self.0
            .shelf
            .send_if_modified(|shelf| Arc::make_mut(shelf).remove(name))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FollowingCredential {
    fn drop(&mut self) {
        if let Some(wanted) = self.credentials.state().wanted.get_mut(&self.name) {
            wanted.users -= 1;
        }
    }
}

fn credential(name: &SecretName) -> Option<&CredentialName> {
    match name {
        SecretName::CredentialRoots(name) | SecretName::Credential(name) => Some(name),
        _ => None,
    }
}

/// Whether a Secret of this name may change what `wanted` stands for.
fn is_about(wanted: &CredentialName, secret: &str) -> bool {
    wanted.secret() == secret || wanted.secret_of_pair() == Some(secret)
}

#[cfg(test)]
mod tests;
