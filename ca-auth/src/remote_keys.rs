//! Issuer keys that follow their issuer over the network.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ca_core::{Backoff, BoxFuture, format_duration, random_unit};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::authenticator::Reason;
#[cfg(feature = "http")]
use crate::https::HttpsClient;
use crate::issuer_keys::IssuerKeys;
#[cfg(feature = "http")]
use crate::key_place::KeyPlace;
use crate::key_source::{KeySource, KeyStatus, KeysUnavailable};

/// Keys that are fetched again from time to time, and when a token shows one that is not known.
///
/// One task asks the issuer, however many tokens wait for the answer. Ages are told by a clock that no
/// adjustment of the time of day disturbs. The task ends with the handle.
pub struct RemoteKeys {
    state: watch::Receiver<State>,
    ask: Arc<Notify>,
    schedule: KeySchedule,
    place: Arc<str>,
    task: AbortHandle,
}

/// When an issuer is asked, and how long its answer is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySchedule {
    /// How often the issuer is asked without a reason, give or take a tenth. A key that the issuer has
    /// withdrawn is accepted for at most this long while the issuer answers.
    pub refresh: Duration,
    /// How long nobody asks again after an answer or a failure. An unknown key shows up at most this
    /// late, and made-up tokens lead to at most one request in this time.
    pub cooldown: Duration,
    /// How long an answer is used while the issuer does not give a newer one. After that, tokens cannot
    /// be judged, which their senders are told as something to try again.
    pub max_age: Duration,
}

impl Default for KeySchedule {
    /// Asked every 5 minutes, at most every 10 s, and good for 4 hours.
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(5 * 60),
            cooldown: Duration::from_secs(10),
            max_age: Duration::from_secs(4 * 3600),
        }
    }
}

impl RemoteKeys {
    /// Follows the keys at `place`. The first request goes out at once; nobody waits for it here. `client`
    /// gives the client for one attempt: what it trusts may change as well.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[cfg(feature = "http")]
    pub fn start(
        place: KeyPlace,
        client: impl Fn() -> HttpsClient + Send + 'static,
        schedule: KeySchedule,
    ) -> Self {
        let name: Arc<str> = place.to_string().into();
        let fetch = move || -> Fetched {
            let (place, client) = (place.clone(), client());
            Box::pin(async move { Ok(place.fetch(&client).await?) })
        };
        Self::start_with(name, fetch, schedule)
    }

    /// The same by other means: `fetch` makes one attempt, and sees to its deadline.
    pub(crate) fn start_with(
        place: Arc<str>,
        fetch: impl FnMut() -> Fetched + Send + 'static,
        schedule: KeySchedule,
    ) -> Self {
        let (sender, state) = watch::channel(State::default());
        let ask = Arc::new(Notify::new());
        let task = keep(
            Arc::clone(&place),
            fetch,
            schedule,
            sender,
            Arc::clone(&ask),
        );
        Self {
            state,
            ask,
            schedule,
            place,
            task: tokio::spawn(task).abort_handle(),
        }
    }

    /// Whose tokens the keys at hand are for, if who published them has said so.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn issuer(&self) -> Option<String> {
        let state = self.state.borrow();
        let keys = &state.held.as_ref()?.keys;
        keys.issuer().map(str::to_owned)
    }

    /// What is known after the issuer has been asked once more; `seen` itself if that was a moment ago.
    async fn asked_again(&self, seen: State) -> Result<State, KeysUnavailable> {
        let recent = |last: &Attempt| last.at.elapsed() < self.schedule.cooldown;
        if seen.last.as_ref().is_some_and(recent) {
            return Ok(seen);
        }
        self.ask.notify_one();
        let mut state = self.state.clone();
        let newer = state.wait_for(|state| state.attempts > seen.attempts).await;
        newer
            .map(|state| state.clone())
            .map_err(|_| self.unavailable("nobody asks for them any more"))
    }

    fn unavailable(&self, reason: &str) -> KeysUnavailable {
        KeysUnavailable::new(format!("keys of {}: {reason}", self.place))
    }

    fn usable(&self, state: &State) -> Result<IssuerKeys, KeysUnavailable> {
        let failure = state.last.as_ref().and_then(|last| last.failure.as_deref());
        let failure = failure.unwrap_or("not fetched yet");
        match &state.held {
            None => Err(self.unavailable(failure)),
            Some(held) => {
                let age = held.at.elapsed();
                if age < self.schedule.max_age {
                    return Ok(held.keys.clone());
                }
                let age = format_duration(Duration::from_secs(age.as_secs()));
                Err(self.unavailable(&format!("the last ones are {age} old; {failure}")))
            }
        }
    }
}

impl KeySource for RemoteKeys {
    fn current(&self) -> BoxFuture<'_, Result<IssuerKeys, KeysUnavailable>> {
        Box::pin(async move {
            let seen = self.state.borrow().clone();
            if let Ok(keys) = self.usable(&seen) {
                return Ok(keys);
            }
            self.usable(&self.asked_again(seen).await?)
        })
    }

    fn newer<'a>(
        &'a self,
        than: &'a IssuerKeys,
    ) -> BoxFuture<'a, Result<Option<IssuerKeys>, KeysUnavailable>> {
        Box::pin(async move {
            let newer = |state: &State| {
                let held = state.held.as_ref()?;
                (!held.keys.is_same(than)).then(|| held.keys.clone())
            };
            let seen = self.state.borrow().clone();
            if let Some(keys) = newer(&seen) {
                return Ok(Some(keys));
            }
            let state = self.asked_again(seen).await?;
            match (newer(&state), state.last.and_then(|last| last.failure)) {
                (Some(keys), _) => Ok(Some(keys)),
                (None, Some(failure)) => Err(self.unavailable(&failure)),
                (None, None) => Ok(None),
            }
        })
    }

    fn status(&self) -> KeyStatus {
        let state = self.state.borrow().clone();
        let held = state.held.as_ref();
        KeyStatus {
            place: Some((*self.place).into()),
            age: held.map(|held| held.at.elapsed()),
            fingerprints: held
                .iter()
                .flat_map(|held| held.keys.fingerprints())
                .collect(),
            failure: state
                .last
                .and_then(|last| last.failure)
                .map(|failure| (*failure).into()),
        }
    }
}

impl Drop for RemoteKeys {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeys")
            .field("status", &self.status())
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}

pub(crate) type Fetched = BoxFuture<'static, Result<IssuerKeys, Reason>>;

#[derive(Clone, Default)]
struct State {
    held: Option<Held>,
    last: Option<Attempt>,
    attempts: u64,
}

#[derive(Clone)]
struct Held {
    keys: IssuerKeys,
    at: Instant,
}

#[derive(Clone)]
struct Attempt {
    at: Instant,
    failure: Option<Arc<str>>,
}

/// Asks for as long as somebody holds the other end.
async fn keep(
    place: Arc<str>,
    mut fetch: impl FnMut() -> Fetched,
    schedule: KeySchedule,
    state: watch::Sender<State>,
    ask: Arc<Notify>,
) {
    let mut backoff = Backoff::new(schedule.cooldown, schedule.refresh);
    loop {
        let fetched = fetch().await;
        let at = Instant::now();
        let wait = match &fetched {
            Ok(_) => {
                backoff.reset();
                schedule.refresh.mul_f64(0.9 + random_unit() / 5.0)
            }
            Err(_) => backoff.next(random_unit()).max(schedule.cooldown),
        };
        state.send_modify(|state| record(state, fetched, at, &place));
        let next = at + wait;
        let earliest = at + schedule.cooldown;
        loop {
            tokio::select! {
                () = sleep_until(next) => break,
                // Who asked before the last answer has it now.
                () = ask.notified() => if Instant::now() >= earliest { break },
            }
        }
    }
}

fn record(state: &mut State, fetched: Result<IssuerKeys, Reason>, at: Instant, place: &Arc<str>) {
    let had_failed = |state: &State| state.last.as_ref().is_some_and(|l| l.failure.is_some());
    let failure = match fetched {
        Ok(keys) => {
            let fingerprints: Vec<_> = keys.fingerprints().collect();
            let is_change = state
                .held
                .as_ref()
                .is_none_or(|held| !held.keys.fingerprints().eq(fingerprints.iter().cloned()));
            if is_change || had_failed(state) {
                tracing::info!(%place, keys = fingerprints.join(", "), "token issuer keys fetched");
            }
            state.held = Some(Held { keys, at });
            None
        }
        Err(error) => {
            tracing::warn!(%place, reason = error.to_string(), "token issuer keys cannot be fetched");
            Some(error.to_string().into())
        }
    };
    state.last = Some(Attempt { at, failure });
    state.attempts += 1;
}

#[cfg(test)]
mod tests;
