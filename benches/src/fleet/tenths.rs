//! Latencies by tenths of a second. Where the machine itself stands still for a moment, as those that are shared do, a few
//! tenths tell of that, and the one in the middle of all tells of the server.

use std::time::Duration;

/// In microseconds, by when a request ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenths(Vec<Vec<u32>>);

/// The middle of all tenths of a second, in each respect.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Middle {
    pub(crate) issued_per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Tenths {
    /// One that ended `at` after the start and took `took`.
    pub(crate) fn add(&mut self, at: Duration, took: Duration) {
        let tenth = (at.as_millis() / 100) as usize;
        if self.0.len() <= tenth {
            self.0.resize_with(tenth + 1, Vec::new);
        }
        self.0[tenth].push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize_with(other.0.len(), Vec::new);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.extend_from_slice(theirs);
        }
    }

    /// Of the first `took`; those in which nothing was issued have no latency.
    pub(crate) fn middle(&self, took: Duration) -> Middle {
        let whole = (took.as_millis() / 100) as usize;
        let (mut counts, mut p50s, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
        for tenth in self.0.iter().take(whole) {
            let mut tenth = tenth.clone();
            tenth.sort_unstable();
            counts.push(tenth.len() as u32);
            p50s.extend(rank(&tenth, 0.5));
            p99s.extend(rank(&tenth, 0.99));
        }
        counts.resize(whole, 0);
        let middle = |mut all: Vec<u32>| {
            all.sort_unstable();
            rank(&all, 0.5).unwrap_or_default()
        };
        let micros = |all| Duration::from_micros(middle(all).into());
        Middle {
            issued_per_second: f64::from(middle(counts)) * 10.0,
            p50: micros(p50s),
            p99: micros(p99s),
        }
    }
}

/// What this share of `sorted` does not exceed; nothing of nothing.
fn rank(sorted: &[u32], share: f64) -> Option<u32> {
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_does_not_hear_of_a_moment_in_which_all_stood_still() {
        let (mut one, mut other) = (Tenths::default(), Tenths::default());
        for millisecond in 0..1000_u64 {
            let at = Duration::from_millis(millisecond);
            let stands_still = (300..500).contains(&millisecond);
            let micros = if stands_still {
                50_000
            } else {
                200 + millisecond % 100
            };
            let which = if millisecond % 2 == 0 {
                &mut one
            } else {
                &mut other
            };
            which.add(at, Duration::from_micros(micros));
        }
        one.merge(&other);
        // What ends after the measurement is in no whole tenth.
        one.add(Duration::from_millis(1010), Duration::from_secs(3));
        let middle = one.middle(Duration::from_millis(1005));
        let micros = Duration::from_micros;
        assert_eq!(
            middle,
            Middle {
                issued_per_second: 1000.0,
                p50: micros(249),
                p99: micros(298),
            }
        );
        assert_eq!(Tenths::default().middle(micros(5)), Middle::default());
        // Tenths in which nothing comes count as such.
        assert_eq!(other.middle(Duration::from_secs(10)).issued_per_second, 0.0);
    }
}
