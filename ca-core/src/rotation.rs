//! When and how a self-signed root gives way to the next one: stages as a pure state machine.
//!
//! ```text
//!            prepare                      activate                      retire
//!  Steady ───────────> Prepared ───────────────────────> Activated ──────────────> Steady
//!  old signs           old signs, old and new trusted    new signs, both trusted   new signs, old is gone
//! ```
//!
//! Each arrow is a function from one state to the next. Whoever drives them saves the new state first and signs with it
//! afterwards, so that a crash between any two leaves one of them, complete. Everybody must have learned of the new
//! root before it signs, and everything the old one has signed must be over before it leaves: the waits of
//! [`RotationPolicy`] see to that, and a clock that is set back only makes them longer.

use std::time::Duration;

use time::OffsetDateTime;

use crate::certificate::{Certificate, CertificateChain};
use crate::crypto::Backend;
use crate::key::{KeyError, KeyKind, PrivateKey};
use crate::self_signed::{RootError, RootParams};
use crate::state::AuthorityState;
use crate::trust::{TrustBundle, TrustError};

/// Where a CA stands in the replacement of its root.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Rotation {
    /// One root, which signs.
    #[default]
    Steady,
    /// The next root is trusted already and does not sign yet.
    Prepared {
        /// The next root and its key.
        next: Successor,
        /// Since when it is trusted.
        since: OffsetDateTime,
    },
    /// The new root signs; the old one is still trusted.
    Activated {
        /// The root that has signed until then.
        retiring: Certificate,
        /// Since when the new one signs.
        since: OffsetDateTime,
    },
}

/// A root that is to sign later.
#[derive(Clone, Debug)]
pub struct Successor {
    /// Its key.
    pub key: PrivateKey,
    /// Its certificate.
    pub root: Certificate,
}

impl AuthorityState {
    /// A longer life for the same root: same key and name. The old certificate stays trusted until it expires; both
    /// lead to the same key.
    ///
    /// # Errors
    /// When the CA is not self-signed or a replacement is under way, or no certificate can be made.
    pub fn renew(&self, params: &RootParams, now: OffsetDateTime) -> Result<Self, RotationError> {
        let old = self.steady_root()?;
        let root = params.renew(&self.key, old, now)?;
        let kept = self
            .roots
            .certificates()
            .iter()
            .filter(|root| root.not_after() > now)
            .cloned();
        Ok(Self {
            roots: TrustBundle::new([root.clone()].into_iter().chain(kept))?,
            chain: CertificateChain::new(root, []),
            ..self.clone()
        })
    }

    /// A next root with a key of its own joins the roots.
    ///
    /// # Errors
    /// When the CA is not self-signed or a replacement is under way, or no key or certificate can be made.
    pub fn prepare(
        &self,
        params: &RootParams,
        kind: KeyKind,
        backend: &Backend,
        now: OffsetDateTime,
    ) -> Result<Self, RotationError> {
        self.steady_root()?;
        let key = PrivateKey::generate_with(kind, backend)?;
        let root = params.self_sign(&key, now)?;
        let roots = self
            .roots
            .certificates()
            .iter()
            .cloned()
            .chain([root.clone()]);
        Ok(Self {
            roots: TrustBundle::new(roots)?,
            rotation: Rotation::Prepared {
                next: Successor { key, root },
                since: now,
            },
            ..self.clone()
        })
    }

    /// The next root signs from now on.
    ///
    /// # Errors
    /// When none is prepared.
    pub fn activate(&self, now: OffsetDateTime) -> Result<Self, RotationError> {
        let Rotation::Prepared { next, .. } = &self.rotation else {
            return Err(RotationError::Stage {
                wanted: "prepared",
                is: self.rotation.name(),
            });
        };
        // The one that signs comes first: whoever looks at the first root sees it.
        let first = TrustBundle::new([next.root.clone()])?;
        Ok(Self {
            key: next.key.clone(),
            chain: CertificateChain::new(next.root.clone(), []),
            roots: first.merge(&self.roots),
            rotation: Rotation::Activated {
                retiring: self.chain.leaf().clone(),
                since: now,
            },
        })
    }

    /// The old root leaves the roots, and with it every other certificate of its key.
    ///
    /// # Errors
    /// When no new root is active.
    pub fn retire(&self) -> Result<Self, RotationError> {
        let Rotation::Activated { retiring, .. } = &self.rotation else {
            return Err(RotationError::Stage {
                wanted: "activated",
                is: self.rotation.name(),
            });
        };
        let kept = self
            .roots
            .certificates()
            .iter()
            .filter(|root| root.public_key() != retiring.public_key());
        Ok(Self {
            roots: TrustBundle::new(kept.cloned())?,
            rotation: Rotation::Steady,
            ..self.clone()
        })
    }

    /// The next root is given up before it has signed anything.
    ///
    /// # Errors
    /// When none is prepared.
    pub fn abandon(&self) -> Result<Self, RotationError> {
        let Rotation::Prepared { next, .. } = &self.rotation else {
            return Err(RotationError::Stage {
                wanted: "prepared",
                is: self.rotation.name(),
            });
        };
        let kept = self
            .roots
            .certificates()
            .iter()
            .filter(|root| **root != next.root);
        Ok(Self {
            roots: TrustBundle::new(kept.cloned())?,
            rotation: Rotation::Steady,
            ..self.clone()
        })
    }

    fn steady_root(&self) -> Result<&Certificate, RotationError> {
        let root = self.chain.leaf();
        if !self.roots.contains(root) {
            return Err(RotationError::NotSelfSigned);
        }
        match &self.rotation {
            Rotation::Steady => Ok(root),
            other => Err(RotationError::Stage {
                wanted: "steady",
                is: other.name(),
            }),
        }
    }
}

impl Rotation {
    /// The stage in one word: `steady`, `prepared` or `activated`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Prepared { .. } => "prepared",
            Self::Activated { .. } => "activated",
        }
    }
}

/// When to act, and in which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationPolicy {
    check_interval: Duration,
    remaining_percent: u8,
    first_check: FirstCheck,
    method: Method,
}

/// When the first look is taken after a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstCheck {
    /// At a random moment of the first interval, so that replicas do not act in step.
    Spread,
    /// One interval after the start.
    AfterInterval,
}

/// What happens to a root that is near its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// The same key gets a longer life, as with Istio.
    Renew,
    /// Another key takes over, in stages.
    Replace {
        /// From trusted to signing: as long as the slowest agent needs to learn of a root, and that is until it renews.
        spread: Duration,
        /// From signing to retiring the old one: the longest life of any certificate that the old one has signed.
        drain: Duration,
    },
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RotationAction {
    /// Nothing.
    Wait,
    /// [`AuthorityState::renew`].
    Renew,
    /// [`AuthorityState::prepare`].
    Prepare,
    /// [`AuthorityState::activate`].
    Activate,
    /// [`AuthorityState::retire`].
    Retire,
}

impl RotationPolicy {
    /// Acts when less than `remaining_percent` of the root's life is left, looking every `check_interval`.
    ///
    /// # Errors
    /// When the interval is zero, or the share above 100.
    pub fn new(
        check_interval: Duration,
        remaining_percent: u8,
        first_check: FirstCheck,
        method: Method,
    ) -> Result<Self, RotationError> {
        if check_interval.is_zero() || remaining_percent > 100 {
            return Err(RotationError::Policy);
        }
        Ok(Self {
            check_interval,
            remaining_percent,
            first_check,
            method,
        })
    }

    /// How long after the start to look first. `random` lies in `0.0..1.0`. Whole seconds, as with Istio.
    pub fn first_check(&self, random: f64) -> Duration {
        match self.first_check {
            FirstCheck::AfterInterval => self.check_interval,
            FirstCheck::Spread => Duration::from_secs(
                self.check_interval
                    .mul_f64(random.clamp(0.0, 1.0))
                    .as_secs(),
            ),
        }
    }

    /// How long to wait between two looks.
    pub fn check_interval(&self) -> Duration {
        self.check_interval
    }

    /// What is to be done at `now`. The stages of a replacement that somebody has begun by hand go on by themselves.
    pub fn action(&self, state: &AuthorityState, now: OffsetDateTime) -> RotationAction {
        match (&state.rotation, self.method) {
            (Rotation::Steady, method) => match method {
                _ if !self.is_due(state.signing_certificate(), now) => RotationAction::Wait,
                Method::Renew => RotationAction::Renew,
                Method::Replace { .. } => RotationAction::Prepare,
            },
            (Rotation::Prepared { since, .. }, Method::Replace { spread, .. }) => {
                // Waiting longer than the old root lives helps nobody.
                let over = state.signing_certificate().not_after() <= now;
                if over || has_passed(*since, spread, now) {
                    RotationAction::Activate
                } else {
                    RotationAction::Wait
                }
            }
            (Rotation::Activated { since, retiring }, Method::Replace { drain, .. }) => {
                let over = retiring.not_after() <= now;
                if over || has_passed(*since, drain, now) {
                    RotationAction::Retire
                } else {
                    RotationAction::Wait
                }
            }
            // With the other method nobody has said how long to wait: the stages are an operator's.
            (Rotation::Prepared { .. } | Rotation::Activated { .. }, Method::Renew) => {
                RotationAction::Wait
            }
        }
    }

    /// What comes next by itself, and the moment from which on it is due; `None` where an operator must act.
    pub fn next(&self, state: &AuthorityState) -> Option<(RotationAction, OffsetDateTime)> {
        let after = |since: OffsetDateTime, wait: Duration, end: OffsetDateTime| {
            let wait = time::Duration::try_from(wait).ok();
            wait.and_then(|wait| since.checked_add(wait))
                .map_or(end, |at| at.min(end))
        };
        let root = state.signing_certificate();
        match (&state.rotation, self.method) {
            (Rotation::Steady, method) => {
                let life = (root.not_after() - root.not_before()).whole_seconds();
                let left = life * i64::from(self.remaining_percent) / 100;
                let step = match method {
                    Method::Renew => RotationAction::Renew,
                    Method::Replace { .. } => RotationAction::Prepare,
                };
                Some((step, root.not_after() - time::Duration::seconds(left)))
            }
            (Rotation::Prepared { since, .. }, Method::Replace { spread, .. }) => Some((
                RotationAction::Activate,
                after(*since, spread, root.not_after()),
            )),
            (Rotation::Activated { since, retiring }, Method::Replace { drain, .. }) => Some((
                RotationAction::Retire,
                after(*since, drain, retiring.not_after()),
            )),
            (Rotation::Prepared { .. } | Rotation::Activated { .. }, Method::Renew) => None,
        }
    }

    fn is_due(&self, root: &Certificate, now: OffsetDateTime) -> bool {
        let (lifetime, left) = (root.not_after() - root.not_before(), root.not_after() - now);
        // In integers: at exactly the threshold it is not due yet.
        left.whole_seconds() * 100 < lifetime.whole_seconds() * i64::from(self.remaining_percent)
    }
}

impl Default for RotationPolicy {
    /// Istio's: every hour, in the last fifth of the life, the first time at a random moment, with the same key.
    fn default() -> Self {
        Self {
            check_interval: Duration::from_secs(3600),
            remaining_percent: 20,
            first_check: FirstCheck::Spread,
            method: Method::Renew,
        }
    }
}

/// Whether `wait` has passed since `since`. A clock that was set back has not moved forward.
fn has_passed(since: OffsetDateTime, wait: Duration, now: OffsetDateTime) -> bool {
    Duration::try_from(now - since).is_ok_and(|passed| passed >= wait)
}

/// Why a root does not give way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// It has signed by somebody else: the root is theirs to replace.
    #[error("this CA is not self-signed: its root is not ours to replace")]
    NotSelfSigned,
    /// The step does not follow from where it stands.
    #[error("the rotation is {is}, not {wanted}")]
    Stage {
        /// Where it would have to stand.
        wanted: &'static str,
        /// Where it stands.
        is: &'static str,
    },
    /// The policy cannot be followed.
    #[error(
        "the check interval must be longer than zero and the remaining share at most 100 percent"
    )]
    Policy,
    /// No key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No certificate.
    #[error(transparent)]
    Root(#[from] RootError),
    /// No root would be left.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

#[cfg(test)]
mod tests;
