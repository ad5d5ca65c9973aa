//! How long a certificate may live: a default, a maximum, and what happens above it.

use std::time::Duration;

use crate::duration::format_duration;

/// Turns the lifetime a caller asks for into the one it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlPolicy {
    default: Duration,
    max: Duration,
    over_max: OverMax,
}

/// What happens to a request above the maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverMax {
    /// It is refused, as Istio's CA does.
    Reject,
    /// It gets the maximum, as istio-csr does.
    Clamp,
}

impl TtlPolicy {
    /// # Errors
    /// When a duration is below one second, or the default above the maximum.
    pub fn new(default: Duration, max: Duration, over_max: OverMax) -> Result<Self, TtlError> {
        if default < SHORTEST || max < SHORTEST {
            return Err(TtlError::TooShort);
        }
        if default > max {
            return Err(TtlError::DefaultOverMax { default, max });
        }
        Ok(Self {
            default,
            max,
            over_max,
        })
    }

    /// The default, or `max` where that is shorter: for a policy that is narrower than this one.
    pub fn default_within(&self, max: Duration) -> Duration {
        self.default.min(max)
    }

    /// The longest lifetime that can be had.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The lifetime for a request; `None` asks for the default.
    ///
    /// # Errors
    /// When more than the maximum is asked for and the policy is to refuse.
    pub fn resolve(&self, requested: Option<Duration>) -> Result<Duration, TtlError> {
        match requested {
            None => Ok(self.default),
            Some(requested) if requested < SHORTEST => Err(TtlError::TooShort),
            Some(requested) if requested <= self.max => Ok(requested),
            Some(requested) => match self.over_max {
                OverMax::Reject => Err(TtlError::OverMax {
                    requested,
                    max: self.max,
                }),
                OverMax::Clamp => Ok(self.max),
            },
        }
    }
}

impl Default for TtlPolicy {
    /// Istio's: 24 hours, at most 90 days, more is refused.
    fn default() -> Self {
        Self {
            default: 24 * HOUR,
            max: 90 * 24 * HOUR,
            over_max: OverMax::Reject,
        }
    }
}

/// Why a lifetime is refused. The text of `OverMax` is Istio's, word for word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TtlError {
    /// More than the maximum.
    #[error("requested TTL {} is greater than the max allowed TTL {}", format_duration(*requested), format_duration(*max))]
    OverMax {
        /// What was asked for.
        requested: Duration,
        /// What is allowed.
        max: Duration,
    },
    /// Less than certificates can express.
    #[error("TTL is shorter than one second")]
    TooShort,
    /// The policy contradicts itself.
    #[error("default TTL {} is greater than the max allowed TTL {}", format_duration(*default), format_duration(*max))]
    DefaultOverMax {
        /// The default.
        default: Duration,
        /// The maximum.
        max: Duration,
    },
}

const HOUR: Duration = Duration::from_secs(3600);
/// Certificates count in whole seconds.
const SHORTEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(over_max: OverMax) -> TtlPolicy {
        TtlPolicy::new(HOUR, 2 * HOUR, over_max).unwrap()
    }

    #[test]
    fn nothing_asked_gives_the_default_and_the_maximum_itself_is_allowed() {
        assert_eq!(policy(OverMax::Reject).resolve(None), Ok(HOUR));
        assert_eq!(
            policy(OverMax::Reject).resolve(Some(2 * HOUR)),
            Ok(2 * HOUR)
        );
    }

    #[test]
    fn above_the_maximum_is_refused_in_istios_words_or_clamped() {
        let refusal = policy(OverMax::Reject).resolve(Some(3 * HOUR)).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "requested TTL 3h0m0s is greater than the max allowed TTL 2h0m0s"
        );
        assert_eq!(policy(OverMax::Clamp).resolve(Some(3 * HOUR)), Ok(2 * HOUR));
    }

    #[test]
    fn a_policy_that_contradicts_itself_does_not_exist() {
        assert!(TtlPolicy::new(2 * HOUR, HOUR, OverMax::Reject).is_err());
        assert_eq!(
            TtlPolicy::new(Duration::ZERO, HOUR, OverMax::Reject),
            Err(TtlError::TooShort)
        );
    }
}
