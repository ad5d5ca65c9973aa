//! Durations, counted in buckets that are at most 1.6 % wide, so that millions of them take a few kilobytes.

use std::time::Duration;

/// How often each duration was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Histogram {
    pub(crate) fn add(&mut self, duration: Duration) {
        let bucket = bucket_of(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.longest = self.longest.max(duration);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    /// The duration that this share of all does not exceed; nothing of nothing.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (share * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_nanos(upper_end(bucket)).min(self.longest));
            }
        }
        None
    }
}

/// Below 64 ns each nanosecond has its bucket; from there on each doubling has 64.
fn bucket_of(nanoseconds: u64) -> usize {
    if nanoseconds < STEPS {
        return nanoseconds as usize;
    }
    let doublings = u64::from(nanoseconds.ilog2() - STEPS.ilog2());
    (STEPS + doublings * STEPS + ((nanoseconds >> doublings) - STEPS)) as usize
}

fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let (doublings, step) = ((bucket - STEPS) / STEPS, (bucket - STEPS) % STEPS);
    ((STEPS + step + 1) << doublings) - 1
}

const STEPS: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_put_into_it_and_is_narrow() {
        for nanoseconds in (0..5_000).chain([1 << 20, (1 << 30) + 12_345, 77_777_777_777]) {
            let bucket = bucket_of(nanoseconds);
            let end = upper_end(bucket);
            assert!(end >= nanoseconds);
            assert!((end - nanoseconds) as f64 <= nanoseconds as f64 / 64.0 + 1.0);
            assert!(bucket == 0 || upper_end(bucket - 1) < nanoseconds);
        }
    }

    #[test]
    fn quantiles_are_ranks() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        let mut late = Histogram::default();
        for micros in 1..=1000 {
            let which = if micros > 900 {
                &mut late
            } else {
                &mut histogram
            };
            which.add(Duration::from_micros(micros));
        }
        histogram.merge(&late);
        let near = |share, micros: u64| {
            let found = histogram.quantile(share).unwrap().as_micros() as f64;
            (found / micros as f64 - 1.0).abs() < 0.02
        };
        assert!(near(0.5, 500) && near(0.99, 990));
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_millis(1)));
        assert_eq!(histogram.longest(), Duration::from_millis(1));
    }
}
