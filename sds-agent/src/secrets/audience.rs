//! Who follows the roots, and how far each has come.
//!
//! Streams are independent tasks, and clients put `ROOTCA` and `default` on different ones. That
//! roots arrive before the certificates that need them is therefore not a matter of the order in
//! which things are sent: it takes somebody who waits until they have arrived.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::Version;

/// The streams that follow the roots. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Audience(Arc<watch::Sender<Followers>>);

/// Each with the version of the roots that it answered last, whether it took them or not.
type Followers = BTreeMap<u64, Option<Version>>;

/// One stream's place among the others, given up when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    stream: u64,
    audience: Audience,
}

impl Audience {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Followers::new())))
    }

    /// A place for a stream. It is waited for only once it [follows](Place::follow).
    pub(crate) fn place(&self, stream: u64) -> Place {
        Place {
            stream,
            audience: self.clone(),
        }
    }

    /// Waits until everybody who follows the roots has answered `version`, **but not longer than
    /// `patience`**: a client that does not answer must not hold up the others.
    pub(super) async fn have_answered(&self, version: &Version, patience: Duration) {
        let mut followers = self.0.subscribe();
        let all = followers.wait_for(|followers| {
            let mut answers = followers.values();
            answers.all(|answered| answered.as_ref() == Some(version))
        });
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!(
                "some clients have not answered to new roots yet; going on without them"
            );
        }
    }
}

impl Place {
    /// Says how far this stream has come: `None` if it does not follow the roots.
    pub(crate) fn follow(&self, answered: Option<Option<&Version>>) {
        self.audience.0.send_if_modified(|followers| {
            let before = followers.get(&self.stream);
            if before.map(Option::as_ref) == answered {
                return false;
            }
            match answered {
                Some(version) => followers.insert(self.stream, version.cloned()),
                None => followers.remove(&self.stream),
            };
            true
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.follow(None);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn everybody_who_follows_is_waited_for() {
        let audience = Audience::new();
        let (one, two, other) = (audience.place(1), audience.place(2), audience.place(3));
        let version = Version::from("new");
        audience.have_answered(&version, LONG).await;

        one.follow(Some(Some(&Version::from("old"))));
        two.follow(Some(None));
        other.follow(None);
        let waiting = audience.have_answered(&version, LONG);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        one.follow(Some(Some(&version)));
        assert!(waiting.as_mut().now_or_never().is_none());
        // It need not answer: it may also leave.
        drop(two);
        waiting.await;
    }

    #[tokio::test(start_paused = true)]
    async fn but_only_for_a_while() {
        let audience = Audience::new();
        let place = audience.place(1);
        place.follow(Some(None));
        let started = tokio::time::Instant::now();
        let patience = Duration::from_secs(1);
        audience
            .have_answered(&Version::from("new"), patience)
            .await;
        assert_eq!(started.elapsed(), patience);
    }
}
