//! What is to be done when: each thing once, however often it is asked for, and none again and again without a pause.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use ca_core::Backoff;
use tokio::time::Instant;

/// Things to do, by name.
///
/// Each attempt at a thing, whatever comes of it, puts the next one off: at first by next to nothing, then by twice as much
/// each time. That is the back-off after failures, and it is what keeps two who disagree about an object from writing it
/// in turns without end. What was left alone for [`QUIET`] begins anew.
#[derive(Debug)]
pub(super) struct Agenda<K> {
    due: BTreeSet<(Instant, K)>,
    when: HashMap<K, Instant>,
    attempts: HashMap<K, Attempts>,
}

#[derive(Debug)]
struct Attempts {
    backoff: Backoff,
    last: Instant,
    not_before: Instant,
}

impl<K: Clone + Eq + Hash + Ord> Agenda<K> {
    pub(super) fn new() -> Self {
        Self {
            due: BTreeSet::new(),
            when: HashMap::new(),
            attempts: HashMap::new(),
        }
    }

    /// `thing` is to be done, as soon as it may.
    pub(super) fn add(&mut self, thing: &K, now: Instant) {
        if self.when.contains_key(thing) {
            return;
        }
        let earliest = self.attempts.get(thing).map_or(now, |made| made.not_before);
        let at = earliest.max(now);
        self.when.insert(thing.clone(), at);
        self.due.insert((at, thing.clone()));
    }

    /// `thing` needs not be done any more.
    pub(super) fn drop(&mut self, thing: &K) {
        if let Some(at) = self.when.remove(thing) {
            self.due.remove(&(at, thing.clone()));
        }
    }

    /// It will not be heard of again.
    pub(super) fn forget(&mut self, thing: &K) {
        self.drop(thing);
        self.attempts.remove(thing);
    }

    /// What has been done was something else: everything may be done at once.
    pub(super) fn begin_anew(&mut self) {
        self.attempts.clear();
        let waiting: Vec<K> = self.when.keys().cloned().collect();
        self.when.clear();
        self.due.clear();
        let now = Instant::now();
        for thing in waiting {
            self.add(&thing, now);
        }
    }

    /// The next thing that is due. **Whoever takes it tries it**: the attempt is counted here.
    pub(super) fn take(&mut self, now: Instant, random: f64) -> Option<K> {
        let (at, _) = self.due.first()?;
        if *at > now {
            return None;
        }
        let (_, thing) = self.due.pop_first()?;
        self.when.remove(&thing);
        let made = self.attempts.entry(thing.clone()).or_insert(Attempts {
            backoff: Backoff::new(SHORTEST, LONGEST),
            last: now,
            not_before: now,
        });
        if now.duration_since(made.last) >= QUIET {
            made.backoff.reset();
        }
        made.last = now;
        made.not_before = now + made.backoff.next(random);
        Some(thing)
    }

    /// When the next thing is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

/// Waits for a moment, or for ever if there is none.
pub(super) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thing_is_done_once_however_often_it_is_asked_for() {
        let mut agenda = Agenda::new();
        let now = Instant::now();
        for _ in 0..3 {
            agenda.add(&"a", now);
        }
        agenda.add(&"b", now);
        agenda.drop(&"b");
        assert_eq!(agenda.take(now, 0.5), Some("a"));
        assert_eq!(agenda.take(now, 0.5), None);
        assert_eq!(agenda.next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_follow_each_other_wait_longer_and_longer_until_there_was_quiet() {
        let mut agenda = Agenda::new();
        let mut waits = Vec::new();
        for _ in 0..14 {
            let asked = Instant::now();
            agenda.add(&"a", asked);
            until(agenda.next()).await;
            waits.push(asked.elapsed().as_millis());
            assert_eq!(agenda.take(Instant::now(), 0.5), Some("a"));
        }
        assert_eq!(waits[..5], [0, 50, 100, 200, 400]);
        assert_eq!(waits[13], LONGEST.as_millis());
        tokio::time::advance(QUIET + LONGEST).await;
        agenda.add(&"a", Instant::now());
        assert!(agenda.take(Instant::now(), 0.5).is_some());
        agenda.add(&"a", Instant::now());
        assert_eq!(agenda.next(), Some(Instant::now() + SHORTEST));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_aim_is_not_kept_waiting_for_what_became_of_the_old_one() {
        let mut agenda = Agenda::new();
        for _ in 0..8 {
            agenda.add(&"a", Instant::now());
            until(agenda.next()).await;
            agenda.take(Instant::now(), 0.5);
        }
        agenda.add(&"a", Instant::now());
        assert!(agenda.next() > Some(Instant::now()));
        agenda.begin_anew();
        assert_eq!(agenda.take(Instant::now(), 0.5), Some("a"));
    }
}
