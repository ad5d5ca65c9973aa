//! The system's random numbers.

use ring::rand::{SecureRandom as _, SystemRandom};

/// Fills `bytes`; `false` when the system has no randomness to give.
pub(crate) fn fill(bytes: &mut [u8]) -> bool {
    SystemRandom::new().fill(bytes).is_ok()
}

/// A number in `0.0..1.0`, for jitter. Without randomness it is one half: no jitter.
pub fn random_unit() -> f64 {
    let mut bytes = [0; 4];
    if !fill(&mut bytes) {
        return 0.5;
    }
    f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
