//! What goes on beside the requests.

use std::fmt;

use ca_core::BoxFuture;

/// The watch, the deletions and the sweeps of one authority. **To be run for as long as it is asked**: without it no request
/// is ever seen to end.
#[must_use = "without it no request is ever seen to end"]
pub struct Upkeep(BoxFuture<'static, ()>);

impl Upkeep {
    pub(super) fn new(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(work))
    }

    /// Goes on for ever.
    pub async fn run(self) {
        self.0.await;
    }
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep").finish_non_exhaustive()
    }
}
