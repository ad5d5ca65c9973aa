//! Waiting for something, always with a deadline, and always given up when the user says stop.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

const STEP: Duration = Duration::from_millis(20);

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on Ctrl-C and SIGTERM end waits instead of the process, so that every guard still runs
/// and no child is left behind. A second signal ends the process at once.
pub(crate) fn catch_signals() -> Result<()> {
    let stop = STOP.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // This order matters: the first signal finds the flag unset and only then sets it.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(stop)))
            .context("cannot watch for signals")?;
    }
    Ok(())
}

/// Has the user asked to stop?
pub(crate) fn stopped() -> bool {
    STOP.get().is_some_and(|stop| stop.load(Ordering::Relaxed))
}

/// Tries until the attempt breaks with a value. It continues with the reason why it is not there
/// yet, which a missed deadline repeats; its errors end the wait at once.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<ControlFlow<T, String>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let reason = match attempt()? {
            ControlFlow::Break(value) => return Ok(value),
            ControlFlow::Continue(reason) => reason,
        };
        if Instant::now() >= deadline {
            bail!("no {what} after {} s: {reason}", limit.as_secs());
        }
        pause(STEP)?;
    }
}

/// Keeps a loop from spinning; an error when the user asked to stop.
pub(crate) fn pause(step: Duration) -> Result<()> {
    if stopped() {
        bail!("interrupted");
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "what is watched lives in other processes and gives no event; callers hold the deadline"
    )]
    std::thread::sleep(step);
    Ok(())
}

/// Until Ctrl-C or SIGTERM, looking after what runs meanwhile.
pub(crate) fn until_stopped(mut look_after: impl FnMut() -> Result<()>) -> Result<()> {
    while !stopped() {
        look_after()?;
        if pause(STEP * 5).is_err() {
            break;
        }
    }
    Ok(())
}
