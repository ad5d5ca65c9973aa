//! How long to wait after a failure: a pure function of the failures so far and one random number.

use std::time::Duration;

/// Waits that double from `initial` to `max`, each spread by ± 50 % so that a fleet does not move in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    current: Duration,
}

impl Backoff {
    /// The first wait is around `initial`; no wait is longer than `max`.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            current: initial,
        }
    }

    /// The next wait. `random` lies in `0.0..=1.0`.
    pub fn next(&mut self, random: f64) -> Duration {
        let wait = self
            .current
            .mul_f64(0.5 + random.clamp(0.0, 1.0))
            .min(self.max);
        self.current = self.current.saturating_mul(2).min(self.max);
        wait
    }

    /// To be called after a success.
    pub fn reset(&mut self) {
        self.current = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(3));
        let waits: Vec<_> = (0..5).map(|_| backoff.next(0.5).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 3000, 3000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(250));
        assert_eq!(backoff.next(1.0), Duration::from_millis(1500));
    }
}
