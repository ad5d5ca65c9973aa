//! Rounds of polling in one turn of a task: what its parts wake in each other is done in this turn, and does not go by way
//! of the scheduler. From outside, a wake-up waits for the next turn, and how long is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

use crate::admission::Lateness;

/// Wakes the task, or asks for another round while there is one.
#[derive(Debug)]
pub(super) struct Rounds {
    waker: Waker,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    now: AtomicU8,
    task: AtomicWaker,
    lateness: Lateness,
}

impl Rounds {
    pub(super) fn new(lateness: Lateness) -> Self {
        let state = Arc::new(State {
            now: AtomicU8::new(IDLE),
            task: AtomicWaker::new(),
            lateness,
        });
        Self {
            waker: Waker::from(Arc::clone(&state)),
            state,
        }
    }

    /// Has `round` done until nothing was woken in it, but not for ever: others have their turns too.
    pub(super) fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        mut round: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.state.task.register(cx.waker());
        for _ in 0..MOST {
            if self.state.now.swap(ROUND, Ordering::SeqCst) == WAITING {
                self.state.lateness.polled();
            }
            let polled = round(&mut Context::from_waker(&self.waker));
            let was = self.state.now.swap(IDLE, Ordering::SeqCst);
            if polled.is_ready() || was == ROUND {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.now.load(Ordering::SeqCst) == IDLE {
            self.lateness.begin();
        }
        let change = |now| match now {
            // The end of the round sees this.
            ROUND => Some(WOKEN),
            IDLE => Some(WAITING),
            _ => None,
        };
        let was = self
            .now
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
        if was == Ok(IDLE) {
            self.lateness.woken();
            self.task.wake();
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if *self.now.get_mut() == WAITING {
            self.lateness.polled();
        }
    }
}

/// Nothing is polled: the task must be woken.
const IDLE: u8 = 0;
/// Something is polled, and nothing was woken since it began.
const ROUND: u8 = 1;
const WOKEN: u8 = 2;
/// The task has been woken, and its turn has not come.
const WAITING: u8 = 3;
/// A request needs four.
const MOST: usize = 16;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::admission::{Admission, Limits};

    fn rounds() -> Rounds {
        let one = std::num::NonZeroUsize::MIN;
        let limits = Limits {
            waiting: one,
            waiting_of_one_caller: one,
        };
        Rounds::new(Admission::start(one, limits).unwrap().connection())
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_is_woken_in_a_round_gets_another_and_afterwards_the_task_is_woken() {
        let woken = Arc::new(Count::default());
        let task = Waker::from(Arc::clone(&woken));
        let (rounds, mut kept, mut count) = (rounds(), None, 0);
        let polled = rounds.poll(&mut Context::from_waker(&task), |cx| {
            kept = Some(cx.waker().clone());
            count += 1;
            if count < 4 {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!((count, woken.0.load(Ordering::SeqCst)), (4, 0));
        kept.unwrap().wake();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn whoever_wakes_itself_without_end_lets_others_have_their_turn() {
        let (rounds, mut turns) = (rounds(), 0);
        poll_fn(|cx| {
            turns += 1;
            if turns == 3 {
                return Poll::Ready(());
            }
            rounds.poll(cx, |cx| {
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            })
        })
        .await;
    }
}
