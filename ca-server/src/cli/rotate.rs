//! `ca-server rotate`: an operator's word to a running server.

use std::path::Path;

use clap::ValueEnum as _;

use crate::authority::rotator::RotationStep;
use crate::control::{self, OrderError};

/// Has the server take one step, and says where the rotation stands then.
pub(super) fn rotate(step: RotationStep, data_dir: &Path) -> Result<String, OrderError> {
    let step = step
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default();
    control::order(data_dir, &format!("rotate {step}"))
}
