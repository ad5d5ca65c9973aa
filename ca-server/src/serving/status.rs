//! How each serving certificate stands, for people and metrics.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ca_core::Certificate;
use time::OffsetDateTime;

use super::handshakes::Handshakes;

/// How one serving certificate stands. A value of one moment.
#[derive(Clone, Debug)]
pub(crate) struct ServingStatus {
    /// `grpc`, `webhook`, `dns`, or what the operator has called it.
    pub(crate) name: Arc<str>,
    /// `istiod`: our own CA; `files`; `none`.
    pub(crate) provider: &'static str,
    pub(crate) certificate: Option<Certificate>,
    /// `None` where others renew it.
    pub(crate) next_renewal: Option<OffsetDateTime>,
    /// What went wrong last, until something goes right.
    pub(crate) last_error: Option<Arc<str>>,
    /// How often a certificate was not made, not taken or not written.
    pub(crate) failures: u64,
    /// Those of the listener that shows it.
    pub(crate) handshakes: Handshakes,
}

/// The certificates of this process. Cheap to clone; all clones see the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServingStatuses(Arc<[StatusCell]>);

impl ServingStatuses {
    /// In the order of the plan.
    pub(crate) fn snapshot(&self) -> Vec<Arc<ServingStatus>> {
        self.0.iter().map(StatusCell::current).collect()
    }
}

impl FromIterator<StatusCell> for ServingStatuses {
    fn from_iter<I: IntoIterator<Item = StatusCell>>(cells: I) -> Self {
        Self(cells.into_iter().collect())
    }
}

/// Where the keeper of one certificate says how it stands.
#[derive(Clone, Debug)]
pub(super) struct StatusCell(Arc<ArcSwap<ServingStatus>>);

impl StatusCell {
    pub(super) fn new(status: ServingStatus) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(status)))
    }

    pub(super) fn current(&self) -> Arc<ServingStatus> {
        self.0.load_full()
    }

    /// There is one writer: nothing is lost between the reading and the writing.
    pub(super) fn update(&self, change: impl FnOnce(&mut ServingStatus)) {
        let mut status = (*self.0.load_full()).clone();
        change(&mut status);
        self.0.store(Arc::new(status));
    }
}
