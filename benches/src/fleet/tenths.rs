//! Latencies by tenths of a second, so that those of some tenths can be told alone.

use std::time::Duration;

/// In microseconds, by when a request ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenths(Vec<Vec<u32>>);

/// What is true of some of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Part {
    /// How many they are, of all.
    pub(crate) share: f64,
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

    /// Of those that are true in `which`; nothing when none is, or nothing was issued in them.
    pub(crate) fn part(&self, which: &[bool]) -> Option<Part> {
        let count = which.iter().filter(|counts| **counts).count();
        let tenths = self.0.iter().zip(which).filter(|(_, counts)| **counts);
        let mut all: Vec<_> = tenths.flat_map(|(tenth, _)| tenth).copied().collect();
        all.sort_unstable();
        Some(Part {
            share: count as f64 / which.len() as f64,
            issued_per_second: all.len() as f64 * 10.0 / count as f64,
            p50: rank(&all, 0.5)?,
            p99: rank(&all, 0.99)?,
        })
    }
}

/// What this share of `sorted` does not exceed; nothing of nothing.
fn rank(sorted: &[u32], share: f64) -> Option<Duration> {
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    let micros = sorted.get(rank - 1)?;
    Some(Duration::from_micros((*micros).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_hears_nothing_of_the_others() {
        let (mut one, mut other) = (Tenths::default(), Tenths::default());
        for millisecond in 0..1000_u64 {
            let at = Duration::from_millis(millisecond);
            let is_slow = (300..500).contains(&millisecond);
            let micros = if is_slow {
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
        // What ends after the measurement is in none of its tenths.
        one.add(Duration::from_millis(1010), Duration::from_secs(3));
        let mut which = [true; 10];
        assert_eq!(one.part(&which).unwrap().p99.as_millis(), 50);
        which[3..5].fill(false);
        let micros = Duration::from_micros;
        assert_eq!(
            one.part(&which),
            Some(Part {
                share: 0.8,
                issued_per_second: 1000.0,
                p50: micros(249),
                p99: micros(298),
            })
        );
        assert_eq!(one.part(&[false; 10]), None);
        assert_eq!(Tenths::default().part(&which), None);
    }
}
