//! A token that logging in gave, and how long it is good.

use std::{
    fmt,
    time::{Duration, Instant},
};

use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

/// The token with its lease.
pub(super) struct Session {
    token: Zeroizing<String>,
    /// The digest of what it was got with, so that another one is noticed without keeping this one.
    got_with: Option<[u8; 32]>,
    since: Instant,
    /// None: it has no end.
    lease: Option<Duration>,
    renewable: bool,
}

/// What can be done with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It can be used as it is.
    Fresh,
    /// It should be renewed first.
    Renewable,
    /// It has no time left that could be relied on.
    Over,
}

impl Session {
    /// `lease` of zero: for ever, as Vault says it.
    pub(super) fn new(
        token: Zeroizing<String>,
        since: Instant,
        lease: Duration,
        renewable: bool,
    ) -> Self {
        Self {
            token,
            got_with: None,
            since,
            lease: Some(lease).filter(|lease| !lease.is_zero()),
            renewable,
        }
    }

    /// The same, which this JWT was given for.
    pub(super) fn got_with(self, jwt: &str) -> Self {
        Self {
            got_with: fingerprint(jwt),
            ..self
        }
    }

    /// The same, which an earlier one was renewed as.
    pub(super) fn in_the_place_of(self, earlier: &Self) -> Self {
        Self {
            got_with: earlier.got_with,
            ..self
        }
    }

    /// Whether this is the JWT that it was got with.
    pub(super) fn is_of(&self, jwt: &str) -> bool {
        self.got_with == fingerprint(jwt)
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// In the last third of its lease a token is no longer used as it is.
    pub(super) fn state(&self, now: Instant) -> State {
        let Some(lease) = self.lease else {
            return State::Fresh;
        };
        let age = now.saturating_duration_since(self.since);
        if age < lease / 3 * 2 {
            State::Fresh
        } else if age < lease && self.renewable {
            State::Renewable
        } else {
            State::Over
        }
    }
}

fn fingerprint(jwt: &str) -> Option<[u8; 32]> {
    digest(&SHA256, jwt.as_bytes()).as_ref().try_into().ok()
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("lease", &self.lease)
            .field("renewable", &self.renewable)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_in_the_last_third_of_its_lease() {
        let since = Instant::now();
        let after = |seconds| since + Duration::from_secs(seconds);
        let lease = Duration::from_secs(90);
        let session = |renewable| Session::new("s".to_owned().into(), since, lease, renewable);
        for (seconds, renewable, state) in [
            (0, true, State::Fresh),
            (59, true, State::Fresh),
            (60, true, State::Renewable),
            (60, false, State::Over),
            (90, true, State::Over),
        ] {
            assert_eq!(session(renewable).state(after(seconds)), state, "{seconds}");
        }
        let endless = Session::new("s".to_owned().into(), since, Duration::ZERO, false);
        assert_eq!(endless.state(after(1_000_000)), State::Fresh);
        assert!(!format!("{endless:?}").contains("token"));
    }
}
