//! Answers of an API server about tokens, remembered for moments.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

/// A token as the cache knows it: it never holds the token itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; 32]);

impl TokenHash {
    pub(super) fn of(token: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Self(hash)
    }
}

/// Answers by token, bounded in number and time. Who asks for what is being asked waits for the same answer; when the one
/// who asked has gone, the next goes on.
#[derive(Debug)]
pub(super) struct ReviewCache<A> {
    /// Held for a look-up.
    generations: Mutex<Generations<A>>,
    limit: usize,
    /// The longest that an answer is good.
    longest: Duration,
}

/// Two halves, of which the older is forgotten as a whole.
#[derive(Debug)]
struct Generations<A> {
    young: HashMap<TokenHash, Slot<A>>,
    old: HashMap<TokenHash, Slot<A>>,
    /// When the young one began.
    since: Instant,
}

type Slot<A> = Arc<OnceCell<Answer<A>>>;

#[derive(Debug)]
struct Answer<A> {
    value: A,
    until: Instant,
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

impl<A: Clone> ReviewCache<A> {
    /// At most `limit` answers, for at most twice `longest`.
    pub(super) fn new(limit: usize, longest: Duration) -> Self {
        Self {
            generations: Mutex::new(Generations {
                young: HashMap::new(),
                old: HashMap::new(),
                since: Instant::now(),
            }),
            limit,
            longest,
        }
    }

    /// The answer about `token`. `ask` says what it is and how long it is good, or fails, which nobody remembers.
    pub(super) async fn answer<E>(
        &self,
        token: TokenHash,
        ask: impl Future<Output = Result<(A, Duration), E>>,
    ) -> Result<A, E> {
        let slot = self.slot(token);
        let answer = slot
            .get_or_try_init(|| async {
                let (value, good_for) = ask.await?;
                let until = Instant::now() + good_for.min(self.longest);
                Ok(Answer { value, until })
            })
            .await?;
        Ok(answer.value.clone())
    }

    /// Where the answer is or will be.
    fn slot(&self, token: TokenHash) -> Slot<A> {
        let now = Instant::now();
        let generations = self.generations.lock();
        let mut all = generations.unwrap_or_else(PoisonError::into_inner);
        let is_full = all.young.len() >= self.limit / 2;
        if is_full || now.duration_since(all.since) > self.longest {
            all.old = std::mem::take(&mut all.young);
            all.since = now;
        }
        let known = all.young.get(&token).or_else(|| all.old.get(&token));
        let is_over = |slot: &Slot<A>| slot.get().is_some_and(|answer| answer.until <= now);
        match known.filter(|slot| !is_over(slot)) {
            Some(slot) => Arc::clone(slot),
            None => {
                let slot = Slot::default();
                all.young.insert(token, Arc::clone(&slot));
                slot
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let all = self.generations.lock().unwrap();
        all.young.len() + all.old.len()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Answers with how many times it has been asked.
    #[derive(Default)]
    struct Server(AtomicU64);

    impl Server {
        async fn asked(&self, cache: &ReviewCache<u64>, token: &str, good_for: Duration) -> u64 {
            let ask = async { Ok::<_, Infallible>((self.next().await, good_for)) };
            let Ok(answer) = cache.answer(TokenHash::of(token), ask).await;
            answer
        }

        async fn next(&self) -> u64 {
            tokio::task::yield_now().await;
            self.0.fetch_add(1, Ordering::SeqCst) + 1
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_good_for_its_time_and_another_token_has_its_own() {
        let (cache, server) = (ReviewCache::new(100, 10 * SECOND), Server::default());
        assert_eq!(server.asked(&cache, "a", 10 * SECOND).await, 1);
        assert_eq!(server.asked(&cache, "a", 10 * SECOND).await, 1);
        assert_eq!(server.asked(&cache, "b", SECOND).await, 2);
        tokio::time::advance(SECOND).await;
        assert_eq!(server.asked(&cache, "a", 10 * SECOND).await, 1);
        assert_eq!(server.asked(&cache, "b", SECOND).await, 3);
        tokio::time::advance(9 * SECOND).await;
        assert_eq!(server.asked(&cache, "a", 10 * SECOND).await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_is_good_for_longer_than_the_longest() {
        let (cache, server) = (ReviewCache::new(100, 2 * SECOND), Server::default());
        assert_eq!(server.asked(&cache, "a", Duration::MAX).await, 1);
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(server.asked(&cache, "a", Duration::MAX).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_at_the_same_time_gets_the_same_answer_even_if_it_is_not_kept() {
        let (cache, server) = (ReviewCache::new(100, SECOND), Server::default());
        let ask = || server.asked(&cache, "a", Duration::ZERO);
        let all = futures_util::future::join_all((0..50).map(|_| ask())).await;
        assert_eq!(all, [1; 50]);
        assert_eq!(ask().await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_remembered_and_one_who_goes_away_keeps_nobody_waiting() {
        let (cache, server) = (ReviewCache::<u64>::new(100, SECOND), Server::default());
        let failed = cache
            .answer(TokenHash::of("a"), async { Err("away") })
            .await;
        assert_eq!(failed, Err("away"));
        let never = std::future::pending::<Result<_, Infallible>>();
        let gone = cache.answer(TokenHash::of("a"), never);
        assert!(tokio::time::timeout(SECOND, gone).await.is_err());
        assert_eq!(server.asked(&cache, "a", SECOND).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_holds_more_than_its_limit() {
        let (cache, server) = (ReviewCache::new(100, 10 * SECOND), Server::default());
        for token in 0..10_000 {
            server.asked(&cache, &token.to_string(), 10 * SECOND).await;
            assert!(cache.len() <= 100);
        }
        assert_eq!(server.asked(&cache, "9999", 10 * SECOND).await, 10_000);
    }
}
