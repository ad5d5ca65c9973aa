//! When a certificate is renewed: a pure function of its dates and one random number.

use std::time::Duration;

use time::OffsetDateTime;

/// Renew when a given share of the lifetime is left, give or take some jitter.
///
/// The rule is Istio's agent's: with `ratio` 0.5 and `jitter` 0.01, a certificate of 24 hours is renewed
/// after 12 hours ± 14.4 minutes. The dates are the certificate's own, so a restart changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RenewalPolicy {
    ratio: f64,
    jitter: f64,
}

impl RenewalPolicy {
    /// # Errors
    /// When either number is not within 0 and 1.
    pub fn new(ratio: f64, jitter: f64) -> Result<Self, RenewalError> {
        if (0.0..=1.0).contains(&ratio) && (0.0..=1.0).contains(&jitter) {
            return Ok(Self { ratio, jitter });
        }
        Err(RenewalError { ratio, jitter })
    }

    /// The moment to renew a certificate with these dates. `random` lies in `0.0..=1.0`; one half means no jitter.
    pub fn renew_at(
        &self,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
        random: f64,
    ) -> OffsetDateTime {
        let left = (self.ratio + self.jitter * (2.0 * random - 1.0)).clamp(0.0, 1.0);
        let lifetime = Duration::try_from(not_after - not_before).unwrap_or_default();
        not_after - lifetime.mul_f64(left)
    }
}

impl Default for RenewalPolicy {
    /// Half of the life left, ± 1 % of it.
    fn default() -> Self {
        Self {
            ratio: 0.5,
            jitter: 0.01,
        }
    }
}

/// A share outside 0 and 1.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("renewal ratio {ratio} and jitter {jitter} must both lie between 0 and 1")]
pub struct RenewalError {
    ratio: f64,
    jitter: f64,
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);
    const END: OffsetDateTime = datetime!(2026-11-21 13:00 UTC);

    #[test]
    fn the_ratio_is_the_share_that_is_left() {
        for (ratio, minutes) in [(0.5, 30), (0.25, 45), (0.75, 15), (1.0, 0), (0.0, 60)] {
            let at = RenewalPolicy::new(ratio, 0.0)
                .unwrap()
                .renew_at(START, END, 0.9);
            assert_eq!(
                at - START,
                time::Duration::minutes(minutes),
                "ratio {ratio}"
            );
        }
    }

    #[test]
    fn jitter_spreads_both_ways_and_stays_inside_the_lifetime() {
        let wide = RenewalPolicy::new(0.5, 0.5).unwrap();
        assert_eq!(wide.renew_at(START, END, 0.0), END);
        assert_eq!(wide.renew_at(START, END, 1.0), START);
        assert_eq!(
            wide.renew_at(START, END, 0.5) - START,
            time::Duration::minutes(30)
        );
        let early = RenewalPolicy::new(1.0, 0.5).unwrap();
        assert_eq!(early.renew_at(START, END, 1.0), START);
        assert_eq!(
            early.renew_at(START, END, 0.0) - START,
            time::Duration::minutes(30)
        );
    }

    #[test]
    fn dates_in_the_wrong_order_mean_now_or_before() {
        assert_eq!(RenewalPolicy::default().renew_at(END, START, 0.5), START);
    }

    #[test]
    fn shares_outside_zero_and_one_are_refused() {
        assert!(RenewalPolicy::new(1.1, 0.0).is_err());
        assert!(RenewalPolicy::new(0.5, -0.1).is_err());
        assert!(RenewalPolicy::new(f64::NAN, 0.0).is_err());
    }
}
