//! Making a new root.

use std::time::Duration;

use time::OffsetDateTime;

use crate::certificate::Certificate;
use crate::key::{KeyError, SigningKey};
use crate::local::{MAX_BACKDATING, whole_seconds};
use crate::template::{self, CaContents, Validity, random_serial};

/// What a new root says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootParams {
    organization: String,
    lifetime: Duration,
}

impl RootParams {
    /// The organization is the subject: Istio puts the trust domain there.
    pub fn new(organization: impl Into<String>, lifetime: Duration) -> Self {
        Self {
            organization: organization.into(),
            lifetime,
        }
    }

    /// A certificate of `key`, signed by itself, from two minutes before `now` until `lifetime` after it.
    ///
    /// # Errors
    /// When the lifetime is beyond the year 9999, or the key fails.
    pub fn self_sign(
        &self,
        key: &dyn SigningKey,
        now: OffsetDateTime,
    ) -> Result<Certificate, RootError> {
        let (validity, serial) = (
            self.validity(now)?,
            random_serial().ok_or(RootError::Randomness)?,
        );
        let contents = CaContents {
            organization: &self.organization,
            common_name: None,
            path_length: None,
            permitted: None,
        };
        Ok(template::sign_root(key, &contents, validity, &serial)?)
    }

    /// A certificate with a longer life for the key of the root `old`: name and key stay those of `old`, so that
    /// everything it has signed leads to the new certificate too.
    ///
    /// # Errors
    /// As [`RootParams::self_sign`].
    pub fn renew(
        &self,
        key: &dyn SigningKey,
        old: &Certificate,
        now: OffsetDateTime,
    ) -> Result<Certificate, RootError> {
        let (validity, serial) = (
            self.validity(now)?,
            random_serial().ok_or(RootError::Randomness)?,
        );
        Ok(template::sign_renewed_root(key, old, validity, &serial)?)
    }

    fn validity(&self, now: OffsetDateTime) -> Result<Validity, RootError> {
        let not_after = time::Duration::try_from(self.lifetime)
            .ok()
            .and_then(|l| now.checked_add(l));
        Ok(Validity {
            not_before: whole_seconds(now - MAX_BACKDATING),
            not_after: whole_seconds(not_after.ok_or(RootError::Lifetime)?),
        })
    }
}

/// Why no root was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// It would end after the year 9999.
    #[error("root lifetime beyond the calendar")]
    Lifetime,
    /// The system has no randomness.
    #[error("no randomness for a serial number")]
    Randomness,
    /// The key fails.
    #[error(transparent)]
    Key(#[from] KeyError),
}
