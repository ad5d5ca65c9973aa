//! When requests are due at a given rate. A thread waits for it: the kernel's timer is exact to some 60 µs, that of the runtime
//! counts whole milliseconds, which is longer than an answer takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Each moment when it has come, until `end` is true. The channel has no bound, because what is late is still due.
#[expect(
    clippy::disallowed_methods,
    reason = "the time is what it waits for, and never long"
)]
pub(crate) fn due(rate: f64, end: Arc<AtomicBool>) -> UnboundedReceiver<Instant> {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || {
        let (start, mut number) = (Instant::now(), 0_u64);
        while !end.load(Ordering::Relaxed) {
            let due = start + Duration::from_secs_f64(number as f64 / rate);
            let left = due.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::sleep(left.min(LOOK_EVERY));
            } else if sender.send(due).is_ok() {
                number += 1;
            } else {
                return;
            }
        }
    });
    receiver
}

/// How often to see whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn moments_come_in_order_none_too_early_and_end() {
        let end = Arc::new(AtomicBool::new(false));
        let mut moments = due(2000.0, Arc::clone(&end));
        let first = moments.recv().await.unwrap();
        for number in 1..20 {
            let moment = moments.recv().await.unwrap();
            assert_eq!(moment, first + Duration::from_micros(500) * number);
            assert!(moment <= Instant::now());
        }
        end.store(true, Ordering::Relaxed);
        while moments.recv().await.is_some() {}
    }
}
