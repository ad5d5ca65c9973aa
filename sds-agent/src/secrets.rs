//! The secrets: what they are, who keeps them fresh, and how others follow them.

mod audience;
#[cfg(feature = "gateway")]
mod credential_name;
mod files;
mod keeper;
mod material;
mod mounted;
mod name;
mod overlap;
mod revocation;
mod shelf;
mod workload_secret;

use std::sync::Arc;

use ca_core::TrustBundle;
use time::OffsetDateTime;
use tokio::sync::watch;

pub(crate) use audience::{Audience, Place};
#[cfg(feature = "gateway")]
pub(crate) use credential_name::{CredentialName, Scheme};
pub(crate) use files::{Files, FollowingFiles, TooMany};
pub(crate) use keeper::Keeper;
#[cfg(feature = "gateway")]
pub(crate) use material::{Unusable, key_pair};
pub(crate) use mounted::Mounted;
pub(crate) use name::{Catalogue, SecretName, UnknownName};
#[cfg(feature = "gateway")]
pub(crate) use revocation::read as read_revocation_lists;
pub(crate) use shelf::{Contents, Secret, Shelf, Version};
pub(crate) use workload_secret::WorkloadSecret;

#[cfg(feature = "gateway")]
use crate::gateway::{Credentials, FollowingCredential, Namespaces};
use crate::metrics::Metrics;

/// A view of the secrets. Cheap to clone; each clone sees every change for itself.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    shelf: watch::Receiver<Arc<Shelf>>,
    workload: watch::Receiver<Option<Workload>>,
    progress: watch::Receiver<Progress>,
    audience: Audience,
    files: Files,
    /// What a gateway shows, where the agent serves one.
    #[cfg(feature = "gateway")]
    credentials: Option<Credentials>,
}

/// Keeps a secret followed that is not the workload's own. Dropped when its user wants it no more.
#[derive(Debug)]
#[expect(dead_code, reason = "held, and never looked into")]
pub(crate) enum Following {
    Files(FollowingFiles),
    #[cfg(feature = "gateway")]
    Credential(FollowingCredential),
}

/// The other end: whoever holds it decides what the secrets are.
#[derive(Debug)]
pub(crate) struct Publisher {
    shelf: watch::Sender<Arc<Shelf>>,
    workload: watch::Sender<Option<Workload>>,
    progress: watch::Sender<Progress>,
    audience: Audience,
    /// What is not for the CA to give.
    mounted: Mounted,
}

/// What a CA gave to the workload, and whom it should trust.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) secret: Arc<WorkloadSecret>,
    /// The roots that came with the secret, and those that are still needed beside them.
    pub(crate) roots: TrustBundle,
}

/// How it is going, for people and for machines that watch over the agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// When a secret was last obtained.
    pub(crate) last_success: Option<OffsetDateTime>,
    /// When the latest secret expires, or has expired.
    pub(crate) expires: Option<OffsetDateTime>,
    /// Why the latest attempt failed; nothing when it did not.
    pub(crate) last_error: Option<Arc<str>>,
    /// When the next attempt is due.
    pub(crate) next_attempt: Option<OffsetDateTime>,
}

/// Makes the two ends. There is no secret yet, and what is `mounted` will not be taken from a CA.
pub(crate) fn channel(metrics: Arc<Metrics>, mounted: Mounted) -> (Publisher, Secrets) {
    let (shelf_sender, shelf) = watch::channel(Arc::new(Shelf::new()));
    let (workload_sender, workload) = watch::channel(None);
    let (progress_sender, progress) = watch::channel(Progress::default());
    let audience = Audience::new();
    let files = Files::new(shelf_sender.clone(), metrics);
    (
        Publisher {
            shelf: shelf_sender,
            workload: workload_sender,
            progress: progress_sender,
            audience: audience.clone(),
            mounted,
        },
        Secrets {
            shelf,
            workload,
            progress,
            audience,
            files,
            #[cfg(feature = "gateway")]
            credentials: None,
        },
    )
}

impl Secrets {
    /// All secrets as they are now.
    pub(crate) fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelf.borrow())
    }

    /// Returns when the shelf has changed since this view last waited for it.
    ///
    /// # Errors
    ///
    /// When it will never change again, because the [`Publisher`] is gone.
    pub(crate) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.shelf.changed().await
    }

    /// What the CA gave to the workload, unless that is nothing yet or has expired.
    pub(crate) fn workload_at(&self, now: OffsetDateTime) -> Option<Workload> {
        let workload = self.workload.borrow();
        workload
            .as_ref()
            .filter(|workload| workload.secret.is_valid_at(now))
            .cloned()
    }

    /// Returns when the workload's secret or its roots have changed.
    ///
    /// # Errors
    ///
    /// As [`changed`](Self::changed).
    pub(crate) async fn workload_changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.workload.changed().await
    }

    /// How it is going.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// The files that secrets come from.
    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// Serves credentials of these namespaces too, for as long as somebody finds them. **Those who have a view already do not
    /// see them by name.**
    #[cfg(feature = "gateway")]
    pub(crate) fn serve_credentials(
        &mut self,
        publisher: &Publisher,
        metrics: Arc<Metrics>,
        namespaces: Namespaces,
    ) -> Credentials {
        let credentials = Credentials::new(publisher.shelf.clone(), metrics, namespaces);
        self.credentials = Some(credentials.clone());
        credentials
    }

    /// What a gateway shows.
    #[cfg(feature = "gateway")]
    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// Which names stand for something.
    pub(crate) fn catalogue(&self) -> Catalogue {
        Catalogue {
            #[cfg(feature = "gateway")]
            credentials: self.credentials.is_some(),
        }
    }

    /// Follows what `name` stands for, unless that is the workload's own and followed anyway.
    ///
    /// # Errors
    ///
    /// When too much is followed already.
    pub(crate) fn follow(&self, name: &SecretName) -> Result<Option<Following>, TooMany> {
        #[cfg(feature = "gateway")]
        if let Some(credentials) = &self.credentials
            && let SecretName::CredentialRoots(_) | SecretName::Credential(_) = name
        {
            let following = credentials.follow(name)?;
            return Ok(Some(Following::Credential(following)));
        }
        Ok(self.files.follow_named(name)?.map(Following::Files))
    }

    /// Every secret of which something is not served, with the reason.
    pub(crate) fn troubles(&self) -> Vec<(SecretName, Arc<str>)> {
        #[cfg_attr(
            not(feature = "gateway"),
            expect(unused_mut, reason = "nothing is added")
        )]
        let mut troubles = self.files.troubles();
        #[cfg(feature = "gateway")]
        if let Some(credentials) = &self.credentials {
            troubles.extend(credentials.troubles());
        }
        troubles
    }

    /// Where streams say how far they have come with the roots.
    pub(crate) fn audience(&self) -> &Audience {
        &self.audience
    }
}

impl Publisher {
    /// Replaces what the workload has and whom it trusts.
    pub(crate) fn publish(&self, workload: Workload, now: OffsetDateTime) {
        let roots = (SecretName::Roots, roots_secret(&workload.roots));
        let pair = (SecretName::KeyPair, workload.secret.key_pair());
        self.put([roots, pair], now);
        self.workload.send_replace(Some(workload));
    }

    /// Replaces whom the workload trusts, ahead of a new certificate. Tells which version that is,
    /// unless the roots are not ours to give.
    pub(crate) fn publish_roots(
        &self,
        roots: &TrustBundle,
        now: OffsetDateTime,
    ) -> Option<Version> {
        self.put([(SecretName::Roots, roots_secret(roots))], now);
        if self.mounted.roots.is_some() {
            return None;
        }
        let shelf = self.shelf.borrow();
        shelf
            .last(&SecretName::Roots)
            .map(|secret| secret.version().clone())
    }

    fn put<const N: usize>(&self, secrets: [(SecretName, Secret); N], now: OffsetDateTime) {
        let is_mounted = |name: &SecretName| match name {
            SecretName::Roots => self.mounted.roots.is_some(),
            SecretName::KeyPair => self.mounted.key_pair.is_some(),
            _ => false,
        };
        let secrets = secrets.map(|(name, secret)| (name, Arc::new(secret)));
        let ours = secrets.into_iter().filter(|(name, _)| !is_mounted(name));
        self.shelf
            .send_if_modified(|shelf| Arc::make_mut(shelf).put(ours, now));
    }

    /// What the workload has, valid or not.
    pub(crate) fn workload(&self) -> Option<Workload> {
        self.workload.borrow().clone()
    }

    /// Who follows the roots.
    pub(crate) fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Reports how it is going.
    pub(crate) fn report(&self, report: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(report);
    }
}

fn roots_secret(roots: &TrustBundle) -> Secret {
    Secret::new(Contents::Roots {
        roots: roots.to_pem().to_owned(),
        revocation: None,
    })
}

#[cfg(test)]
pub(crate) mod testing;
