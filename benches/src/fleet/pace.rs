//! How fast the processor itself is. One that is shared is many times slower at some moments, and so is whatever runs on it. A
//! thread does the same few multiplications every millisecond, without a system call among them, and sees it.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::time::ClockId;

use crate::stopwatch::processor_time;

/// A thread that multiplies.
pub(crate) struct Pace {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Turns>,
}

/// When it did, and the processor time that it took.
#[derive(Debug, Default)]
pub(crate) struct Turns(Vec<(Instant, Duration)>);

impl Pace {
    pub(crate) fn watch() -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || {
            let mut turns = Turns::default();
            loop {
                let (at, before) = (Instant::now(), own_time());
                multiply();
                turns.0.push((at, own_time().saturating_sub(before)));
                if ended.load(Ordering::Relaxed) {
                    return turns;
                }
                pause();
            }
        });
        Self { end, thread }
    }

    /// Ends it. Nothing when the thread could not go on.
    pub(crate) fn read(self) -> Turns {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

impl Turns {
    /// For each tenth of a second from `since` on: whether the processor kept its pace in it and in the one before, whose work may
    /// still wait. It does in a hundredth whose middle turn takes less than twice what the middle of all takes.
    pub(crate) fn steady(&self, since: Instant, tenths: usize) -> Vec<bool> {
        let usual = middle(self.0.iter().map(|(_, took)| *took).collect());
        // With the tenth before the first.
        let mut hundredths = vec![Vec::new(); (tenths + 1) * 10];
        for (at, took) in &self.0 {
            let Some(after) = (*at + TENTH).checked_duration_since(since) else {
                continue;
            };
            let hundredth = (after.as_millis() / 10) as usize;
            if let Some(turns) = hundredths.get_mut(hundredth) {
                turns.push(*took);
            }
        }
        let steady = |turns: &Vec<Duration>| !turns.is_empty() && middle(turns.clone()) < usual * 2;
        let tenths: Vec<_> = hundredths
            .chunks(10)
            .map(|tenth| tenth.iter().all(steady))
            .collect();
        tenths.windows(2).map(|two| two[0] && two[1]).collect()
    }
}

/// Each has to wait for the one before: some fifteen microseconds.
fn multiply() {
    let mut number = 12_345_u64;
    for _ in 0..10_000 {
        number = black_box(number.wrapping_mul(6_364_136_223_846_793_005));
    }
}

/// Of this thread alone: others that have the processor meanwhile do not count.
fn own_time() -> Duration {
    processor_time(ClockId::ThreadCPUTime)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, and never long"
)]
fn pause() {
    thread::sleep(Duration::from_millis(1));
}

/// Nothing of nothing.
fn middle(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

const TENTH: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_with_a_slow_moment_does_not_count_and_neither_does_the_next() {
        let since = Instant::now() + Duration::from_secs(1);
        let turn = |millisecond: u64| {
            let at = since - TENTH + Duration::from_millis(millisecond);
            // One slow turn is an interrupt. Three hundredths of them are the processor.
            let slow = millisecond == 150 || (430..460).contains(&millisecond);
            (at, Duration::from_micros(if slow { 60 } else { 15 }))
        };
        let turns = Turns((0..800).map(turn).collect());
        let steady = [true, true, true, false, false, true, true];
        assert_eq!(turns.steady(since, 7), steady);
        // Of what nobody has watched nothing is known.
        assert_eq!(turns.steady(since, 8)[7..], [false]);
        assert_eq!(Turns::default().steady(since, 1), [false]);
    }

    #[test]
    fn the_thread_multiplies_until_it_is_read() {
        let turns = Pace::watch().read();
        assert!(!turns.0.is_empty());
        assert!(turns.0.iter().all(|(_, took)| !took.is_zero()), "{turns:?}");
    }
}
