//! The time in which two generations of roots are in use.

use ca_core::{Certificate, TrustBundle};
use time::OffsetDateTime;

/// Roots that a CA has stopped to send, each with the end of the last certificate that may need it.
///
/// When a CA moves to a new root, peers renew one after the other, over half a lifetime. Whoever drops
/// the old root with its own renewal refuses all those that have not come that far.
#[derive(Debug, Default)]
pub(super) struct Overlap(Vec<(Certificate, OffsetDateTime)>);

impl Overlap {
    /// `new` replaces `old`, whose certificate ends at `end`: peers may hold one like it until then.
    pub(super) fn replaced(&mut self, old: &TrustBundle, end: OffsetDateTime, new: &TrustBundle) {
        for root in old.certificates() {
            match self.0.iter_mut().find(|(kept, _)| kept == root) {
                Some((_, until)) => *until = end.max(*until),
                None => self.0.push((root.clone(), end)),
            }
        }
        self.0.retain(|(root, _)| !new.contains(root));
    }

    /// `roots` and what is still kept beside them.
    pub(super) fn with(&mut self, roots: &TrustBundle, now: OffsetDateTime) -> TrustBundle {
        self.0.retain(|(_, until)| now < *until);
        let kept = self.0.iter().map(|(root, _)| root.clone());
        // No roots are kept, or all of them were roots before.
        TrustBundle::new(kept).map_or_else(|_| roots.clone(), |kept| roots.merge(&kept))
    }

    /// When the first of the kept roots goes, if any is kept.
    pub(super) fn next_end(&self) -> Option<OffsetDateTime> {
        self.0.iter().map(|(_, until)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use ca_core::testing::TestCa;
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);
    const HOUR: time::Duration = time::Duration::HOUR;

    fn roots() -> TrustBundle {
        TestCa::new("cluster.local").roots()
    }

    #[test]
    fn a_replaced_root_stays_until_the_last_certificate_of_it_ends() {
        let (old, new) = (roots(), roots());
        let mut overlap = Overlap::default();
        assert_eq!(overlap.with(&old, NOON), old);
        assert_eq!(overlap.next_end(), None);

        overlap.replaced(&old, NOON + HOUR, &new);
        assert_eq!(overlap.next_end(), Some(NOON + HOUR));
        assert_eq!(overlap.with(&new, NOON), new.merge(&old));
        // A renewal under the new root changes nothing.
        overlap.replaced(&new, NOON + HOUR * 2, &new);
        assert_eq!(overlap.with(&new, NOON), new.merge(&old));
        assert_eq!(overlap.with(&new, NOON + HOUR), new);
        assert_eq!(overlap.next_end(), None);
    }

    #[test]
    fn a_root_that_comes_back_is_no_longer_on_its_way_out() {
        let (old, new) = (roots(), roots());
        let mut overlap = Overlap::default();
        overlap.replaced(&old, NOON + HOUR, &new);
        overlap.replaced(&new, NOON + HOUR * 2, &old);
        assert_eq!(overlap.with(&old, NOON), old.merge(&new));
        assert_eq!(overlap.next_end(), Some(NOON + HOUR * 2));
    }
}
